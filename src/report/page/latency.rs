//! Distributions of latencies, one below the other on one scale of decades.

use super::html::Html;
use super::svg::{self, Scale, WIDTH, n};
use crate::report::Bins;

/// What takes how long.
#[derive(Debug)]
pub struct Row<'a> {
    pub name: &'a str,
    pub bins: &'a Bins,
    /// Microseconds, and what they are: each a line across the distribution.
    pub marks: Vec<(u64, String)>,
    pub class: &'static str,
}

const MARGIN: f64 = 10.0;
const BODY: f64 = 64.0;
const NAME: f64 = 18.0;
const MARK: f64 = 13.0;
const GAP: f64 = 16.0;
const AXIS: f64 = 22.0;
/// What the height of a single read is at the least, so that none is out of sight.
const SEEN: f64 = 1.5;

impl Row<'_> {
    fn head(&self) -> f64 {
        NAME + MARK * self.marks.len() as f64
    }
}

/// Draws them.
pub fn draw(html: &mut Html, rows: &[Row]) {
    let ends = rows.iter().flat_map(|row| {
        let bins = row.bins.all();
        let ends = [bins.first().map(|(bin, _)| *bin as f64), bins.last().map(|(bin, _)| *bin as f64 + 1.0)];
        ends.into_iter().flatten().chain(row.marks.iter().map(|(us, _)| Bins::number(*us as f64)))
    });
    let (low, high) =
        ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), end| (low.min(end), high.max(end)));
    // A whole decade at the least, with room at both ends.
    let wide = (high - low).max(Bins::number(10.0)) - (high - low);
    let x =
        Scale { values: (low - wide / 2.0 - 2.0, high + wide / 2.0 + 2.0), places: (MARGIN, WIDTH - MARGIN) };
    let heights = rows.iter().map(|row| row.head() + BODY + GAP);
    let height = heights.sum::<f64>() + AXIS - GAP;
    let said = rows.iter().map(|row| {
        let marks: Vec<&str> = row.marks.iter().map(|(_, text)| text.as_str()).collect();
        format!("{}: {}", row.name, marks.join(", "))
    });
    let words = format!("How long reads take. {}.", said.collect::<Vec<_>>().join("; "));
    svg::chart(html, height, "latency", &words, |html| {
        ticks(html, x, height);
        let mut top = 0.0;
        for row in rows {
            one(html, row, x, top);
            top += row.head() + BODY + GAP;
        }
    });
}

/// A line for each decade.
fn ticks(html: &mut Html, x: Scale, height: f64) {
    let base = height - AXIS;
    for (us, text) in [
        (1.0, "1 us"),
        (10.0, "10 us"),
        (100.0, "100 us"),
        (1e3, "1 ms"),
        (1e4, "10 ms"),
        (1e5, "100 ms"),
        (1e6, "1 s"),
        (1e7, "10 s"),
        (1e8, "100 s"),
    ] {
        let place = x.at(Bins::number(us));
        if (MARGIN..=WIDTH - MARGIN).contains(&place) {
            svg::line(html, (place, NAME), (place, base), "grid");
            let anchor = match place {
                left if left < 30.0 => "start",
                right if right > WIDTH - 30.0 => "end",
                _ => "middle",
            };
            svg::label(html, (place, height - 7.0), "soft", anchor, text);
        }
    }
}

fn one(html: &mut Html, row: &Row, x: Scale, top: f64) {
    let base = top + row.head() + BODY;
    let bins = row.bins.all();
    let most = bins.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1) as f64;
    let tall = |count: u64| if count == 0 { 0.0 } else { (count as f64 / most * BODY).max(SEEN) };
    let all: Vec<(f64, f64, f64)> = bins
        .iter()
        .map(|(bin, count)| (x.at(*bin as f64), x.at(*bin as f64 + 1.0), base - tall(*count)))
        .collect();
    let title = format!("{}: {} reads", row.name, svg::count(row.bins.reads()));
    html.nest("path", &[("class", &format!("area {}", row.class)), ("d", &svg::steps(&all, base))], |html| {
        html.leaf("title", &[], &title);
    });
    svg::line(html, (MARGIN, base), (WIDTH - MARGIN, base), "axis");
    svg::label(html, (MARGIN, top + 12.0), "strong", "start", row.name);
    let reads = format!("{} reads", svg::count(row.bins.reads()));
    svg::label(html, (WIDTH - MARGIN, top + 12.0), "soft", "end", &reads);
    let marks = row.marks.iter().enumerate().map(|(at, (us, text))| {
        let y = top + NAME + MARK * (at as f64 + 1.0);
        (x.at(Bins::number(*us as f64)), y, text)
    });
    for (place, y, _) in marks.clone() {
        svg::line(html, (place, y - 9.0), (place, base), "mark");
    }
    for (place, y, text) in marks {
        // To the side that has more room.
        let (shift, anchor) = if place < WIDTH / 2.0 { (4.0, "start") } else { (-4.0, "end") };
        svg::label(html, (place + shift, y), "", anchor, text);
        html.void("circle", &[("class", "mark"), ("cx", &n(place)), ("cy", &n(base)), ("r", "2.5")]);
    }
}
