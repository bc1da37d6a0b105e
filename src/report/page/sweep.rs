//! How the rate rises with the depth, and where its knee is.

use super::html::Html;
use super::svg::{self, Scale, WIDTH, n};
use crate::report::{SweepReport, mb_per_s};

const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 22.0;
const HEIGHT: f64 = 236.0;
const BASE: f64 = HEIGHT - 40.0;
/// Labels of depths that are nearer than this would run into each other.
const APART: f64 = 20.0;

/// Draws all sweeps into one chart; each has a mark of its own shape.
pub fn draw(html: &mut Html, sweeps: &[SweepReport]) {
    let points = || sweeps.iter().flat_map(|sweep| &sweep.points);
    let deepest = points().map(|point| point.depth).max().unwrap_or(1).max(2);
    let most = svg::round_up(points().map(|point| point.hydrated_bytes_per_s).fold(1.0, f64::max) * 1.05);
    let x = Scale { values: (0.0, f64::from(deepest).log2()), places: (LEFT, WIDTH - RIGHT) };
    let y = Scale { values: (0.0, most), places: (BASE, TOP) };
    let said: Vec<String> = sweeps.iter().map(said).collect();
    svg::chart(html, HEIGHT, "sweep", &format!("Rate by depth. {}", said.join(" ")), |html| {
        for share in [0.0, 0.5, 1.0] {
            let place = y.at(most * share);
            svg::line(
                html,
                (LEFT, place),
                (WIDTH - RIGHT, place),
                if share == 0.0 { "axis" } else { "grid" },
            );
            svg::label(html, (LEFT - 6.0, place + 4.0), "soft", "end", &short(most * share));
        }
        svg::label(html, (LEFT - 6.0, 10.0), "soft", "end", "MB/s");
        depths(html, sweeps, x);
        svg::label(html, (WIDTH / 2.0 + 20.0, HEIGHT - 4.0), "soft", "middle", "reads in flight");
        for (at, sweep) in sweeps.iter().enumerate() {
            one(html, sweep, at, x, y);
        }
    });
}

fn said(sweep: &SweepReport) -> String {
    let points: Vec<String> = sweep
        .points
        .iter()
        .map(|point| format!("{} at {}", mb_per_s(point.hydrated_bytes_per_s), point.depth))
        .collect();
    let knee = sweep.knee.map_or_else(String::new, |knee| format!(", knee at {knee}"));
    format!("{}: {}{knee}.", sweep.mode, points.join(", "))
}

fn short(rate: f64) -> String {
    n(rate / 1e6)
}

/// The depths that were tried: those of knees first, then as many others as there is room for.
fn depths(html: &mut Html, sweeps: &[SweepReport], x: Scale) {
    let knees = sweeps.iter().filter_map(|sweep| sweep.knee).map(|knee| (knee, "strong"));
    let all = sweeps.iter().flat_map(|sweep| sweep.points.iter().map(|point| (point.depth, "soft")));
    let mut taken: Vec<f64> = Vec::new();
    for (depth, class) in knees.chain(all) {
        let place = x.at(f64::from(depth.max(1)).log2());
        if taken.iter().all(|other| (other - place).abs() >= APART) {
            taken.push(place);
            svg::label(html, (place, BASE + 16.0), class, "middle", &depth.to_string());
        }
    }
}

fn one(html: &mut Html, sweep: &SweepReport, number: usize, x: Scale, y: Scale) {
    let class = ["s0", "s1"][number % 2];
    let place = |depth: u32, rate: f64| (x.at(f64::from(depth.max(1)).log2()), y.at(rate));
    let points: Vec<(f64, f64)> =
        sweep.points.iter().map(|point| place(point.depth, point.hydrated_bytes_per_s)).collect();
    let dashed = if number % 2 == 1 { " dashed" } else { "" };
    let line = format!("line {class}{dashed}");
    html.void("path", &[("class", &line), ("d", &svg::path_of(&points))]);
    let mut knees = Vec::new();
    for (point, (px, py)) in sweep.points.iter().zip(&points) {
        let is_knee = sweep.knee == Some(point.depth);
        if is_knee {
            svg::line(html, (*px, *py), (*px, BASE), "mark dashed");
            let ring = [("class", "ring"), ("cx", &*n(*px)), ("cy", &n(*py)), ("r", "8")];
            html.void("circle", &ring);
            knees.push(((*px, *py), format!("knee {}", point.depth)));
        }
        let title =
            format!("{} at depth {}: {}", sweep.mode, point.depth, mb_per_s(point.hydrated_bytes_per_s));
        shape(html, (*px, *py), number, class, &title, is_knee);
    }
    for ((px, py), text) in knees {
        // The first above its point, the second below, so that they do not meet.
        let below = if number % 2 == 1 { 22.0 } else { -12.0 };
        let anchor = if px > WIDTH - 50.0 { "end" } else { "middle" };
        svg::label(html, (px, (py + below).min(BASE - 4.0)), "strong knee", anchor, &text);
    }
}

/// A circle for the first, a square for the second.
fn shape(html: &mut Html, (x, y): (f64, f64), number: usize, class: &str, title: &str, is_knee: bool) {
    let class = format!("dot {class}{}", if is_knee { " at-knee" } else { "" });
    let inside = |html: &mut Html| {
        html.leaf("title", &[], title);
    };
    if number.is_multiple_of(2) {
        html.nest("circle", &[("class", &class), ("cx", &n(x)), ("cy", &n(y)), ("r", "3.5")], inside);
    } else {
        let (left, top) = (n(x - 3.3), n(y - 3.3));
        let attributes = [("class", &*class), ("x", &left), ("y", &top), ("width", "6.6"), ("height", "6.6")];
        html.nest("rect", &attributes, inside);
    }
}
