//! Values over time, one panel below the other, on one scale.

use super::html::Html;
use super::svg::{self, Scale, WIDTH};

/// A value over time.
#[derive(Debug)]
pub struct Panel {
    pub name: String,
    /// What it comes to.
    pub note: String,
    /// From, to, value; times in seconds.
    pub steps: Vec<(f64, f64, f64)>,
    pub class: &'static str,
}

const MARGIN: f64 = 10.0;
const HEAD: f64 = 18.0;
const BODY: f64 = 52.0;
const FOOT: f64 = 22.0;
/// Steps of a panel at the most.
const STEPS_MAX: usize = 30;
/// Points of a series that a step spans at the least: fewer, and it shows how reads ended together by chance.
const POINTS_EACH: usize = 3;

/// Rates from sums: what was there at the end of each step less what was there at its beginning.
pub fn rates(series: &[(f64, f64)]) -> Vec<(f64, f64, f64)> {
    let end = series.last().map_or(0.0, |(s, _)| *s);
    if end <= 0.0 {
        return Vec::new();
    }
    let number = (series.len() / POINTS_EACH).clamp(1, STEPS_MAX);
    let width = end / number as f64;
    let step = |at: usize| {
        let (from, to) = (at as f64 * width, (at + 1) as f64 * width);
        (from, to, (sum_at(series, to) - sum_at(series, from)) / width)
    };
    (0..number).map(step).collect()
}

/// The sum at a time, between the points of a series that begins with nothing.
fn sum_at(series: &[(f64, f64)], s: f64) -> f64 {
    let after = series.partition_point(|(at, _)| *at < s);
    let (low_s, low) = if after == 0 { (0.0, 0.0) } else { series[after - 1] };
    match series.get(after) {
        Some((high_s, high)) if *high_s > low_s => low + (high - low) * (s - low_s) / (high_s - low_s),
        Some((_, high)) => *high,
        None => low,
    }
}

/// Draws them below each other. `shown` says what a value is in words.
pub fn draw(html: &mut Html, id: &'static str, what: &str, panels: &[Panel], shown: impl Fn(f64) -> String) {
    let values = panels.iter().flat_map(|panel| panel.steps.iter().map(|(_, _, value)| *value));
    let most = svg::round_up(values.fold(0.0, f64::max));
    let each = HEAD + BODY + FOOT;
    let said: Vec<String> = panels.iter().map(|panel| format!("{}: {}", panel.name, panel.note)).collect();
    let words = format!("{what}. {}.", said.join("; "));
    svg::chart(html, each * panels.len() as f64, id, &words, |html| {
        for (at, panel) in panels.iter().enumerate() {
            one(html, panel, each * at as f64, most, &shown);
        }
    });
}

fn one(html: &mut Html, panel: &Panel, top: f64, most: f64, shown: &impl Fn(f64) -> String) {
    let base = top + HEAD + BODY;
    let end = panel.steps.last().map_or(0.0, |(_, to, _)| *to);
    let x = Scale { values: (0.0, end), places: (MARGIN, WIDTH - MARGIN) };
    let y = Scale { values: (0.0, most), places: (base, top + HEAD + 2.0) };
    svg::label(html, (MARGIN, top + 12.0), "strong", "start", &panel.name);
    svg::label(html, (WIDTH - MARGIN, top + 12.0), "", "end", &panel.note);
    svg::line(html, (MARGIN, y.at(most)), (WIDTH - MARGIN, y.at(most)), "grid");
    let all: Vec<(f64, f64, f64)> =
        panel.steps.iter().map(|(from, to, value)| (x.at(*from), x.at(*to), y.at(*value))).collect();
    let class = format!("area {}", panel.class);
    html.nest("path", &[("class", &class), ("d", &svg::steps(&all, base))], |html| {
        html.leaf("title", &[], &format!("{}: {}", panel.name, panel.note));
    });
    svg::line(html, (MARGIN, base), (WIDTH - MARGIN, base), "axis");
    svg::label(html, (MARGIN, base + 13.0), "soft", "start", "0 s");
    svg::label(html, (WIDTH / 2.0, base + 13.0), "soft", "middle", &format!("height: {}", shown(most)));
    svg::label(html, (WIDTH - MARGIN, base + 13.0), "soft", "end", &svg::span(end));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_steady_rate_is_flat() {
        let series: Vec<(f64, f64)> = (1..=30).map(|s| (f64::from(s), 5.0 * f64::from(s))).collect();
        let steps = rates(&series);
        assert_eq!(steps.len(), 10);
        assert!(steps.iter().all(|(_, _, rate)| (rate - 5.0).abs() < 1e-9), "{steps:?}");
        assert!(rates(&[]).is_empty() && rates(&[(0.0, 0.0)]).is_empty());
    }

    proptest! {
        #[test]
        fn steps_amount_to_all_that_was_done(
            points in prop::collection::vec((1u32..1000, 0u32..1000), 1..100),
        ) {
            let (mut s, mut sum) = (0.0, 0.0);
            let series: Vec<(f64, f64)> = points.iter().map(|(wait, more)| {
                (s, sum) = (s + f64::from(*wait), sum + f64::from(*more));
                (s, sum)
            }).collect();
            let total: f64 = rates(&series).iter().map(|(from, to, rate)| (to - from) * rate).sum();
            prop_assert!((total - sum).abs() < 1e-6 * sum.max(1.0), "{} {}", total, sum);
            prop_assert!(rates(&series).iter().all(|(_, _, rate)| *rate >= -1e-9));
        }
    }
}
