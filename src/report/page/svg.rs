//! What charts are made of: numbers as text, scales, ticks, paths. Lengths are those of a telephone: on a wider screen
//! a chart grows as a whole.

use super::html::Html;
use crate::units::{human_ns, human_s};
use std::fmt::Write;

/// Width of every chart.
pub const WIDTH: f64 = 330.0;

/// A chart of so high, with what it shows in words.
pub fn chart(html: &mut Html, height: f64, id: &'static str, words: &str, inside: impl FnOnce(&mut Html)) {
    let view = format!("0 0 {WIDTH} {}", n(height));
    let attributes =
        [("id", id), ("class", "chart"), ("viewBox", &view), ("role", "img"), ("aria-label", words)];
    html.nest("svg", &attributes, inside);
}

/// A number with a digit after the point at the most.
pub fn n(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), Into::into)
}

/// A whole number with commas: `1,024,000`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `35.2 ms`, of microseconds.
pub fn us(us: u64) -> String {
    human_ns(us.saturating_mul(1000))
}

/// `1.90 s`, `57 min`, `4.2 h`.
pub fn span(seconds: f64) -> String {
    match seconds {
        short if short < 90.0 => human_s(short),
        few if few < 600.0 => format!("{:.1} min", few / 60.0),
        some if some < 7200.0 => format!("{:.0} min", some / 60.0),
        long => format!("{:.1} h", long / 3600.0),
    }
}

/// Text of a chart. `anchor` is `start`, `middle` or `end`.
pub fn label(html: &mut Html, (x, y): (f64, f64), class: &str, anchor: &str, text: &str) {
    html.leaf("text", &[("x", &n(x)), ("y", &n(y)), ("class", class), ("text-anchor", anchor)], text);
}

/// A straight line.
pub fn line(html: &mut Html, from: (f64, f64), to: (f64, f64), class: &str) {
    let (x1, y1, x2, y2) = (n(from.0), n(from.1), n(to.0), n(to.1));
    html.void("line", &[("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2), ("class", class)]);
}

/// A path through points.
pub fn path_of(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        let _ = write!(path, "{}{} {}", if at == 0 { "M" } else { "L" }, n(*x), n(*y));
    }
    path
}

/// The outline of steps above a base line: each from one x to another, at a y.
pub fn steps(all: &[(f64, f64, f64)], base: f64) -> String {
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return String::new() };
    let mut points = vec![(first.0, base)];
    points.extend(all.iter().flat_map(|(from, to, y)| [(*from, *y), (*to, *y)]));
    points.push((last.1, base));
    path_of(&points) + "z"
}

/// From values to places.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub values: (f64, f64),
    pub places: (f64, f64),
}

impl Scale {
    /// The place of a value.
    pub fn at(&self, value: f64) -> f64 {
        let (low, high) = self.values;
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        self.places.0 + share * (self.places.1 - self.places.0)
    }
}

/// A round number that is at least this, of 1, 1.5, 2, 3, 5 and 10.
pub fn round_up(value: f64) -> f64 {
    let value = value.max(f64::MIN_POSITIVE);
    let decade = 10f64.powf(value.log10().floor());
    let factor = [1.0, 1.5, 2.0, 3.0, 5.0].into_iter().find(|factor| factor * decade >= value * 0.999);
    factor.unwrap_or(10.0) * decade
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([n(1.0), n(1.25), n(-0.04), n(360.0)], ["1", "1.2", "-0", "360"]);
        assert_eq!([count(7), count(1000), count(1_024_000)], ["7", "1,000", "1,024,000"]);
        assert_eq!([1.9, 150.0, 3600.0, 15_000.0].map(span), ["1.90 s", "2.5 min", "60 min", "4.2 h"]);
        assert_eq!([round_up(139.0), round_up(1.0), round_up(96.0), round_up(0.5)], [150.0, 1.0, 100.0, 0.5]);
    }

    #[test]
    fn steps_stand_on_their_base() {
        assert_eq!(steps(&[(0.0, 5.0, 2.0), (5.0, 10.0, 4.0)], 9.0), "M0 9L0 2L5 2L5 4L10 4L10 9z");
        assert_eq!(steps(&[], 9.0), "");
        let scale = Scale { values: (0.0, 10.0), places: (100.0, 0.0) };
        assert_eq!((scale.at(0.0), scale.at(5.0)), (100.0, 50.0));
        assert_eq!(Scale { values: (1.0, 1.0), places: (7.0, 9.0) }.at(1.0), 7.0);
    }
}
