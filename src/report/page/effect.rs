//! The page of an `effect`: what a warming did for the boot.

use super::html::Html;
use super::parts::{self, Bar, Mood};
use super::svg::{self, Scale, WIDTH, count, n, span, us};
use crate::report::{EffectReport, StageEffect};
use crate::units::{ByteSize, SECTOR_BYTES, human_bytes};

/// States of a unit, in words, each with its colour.
const STATES: [(&str, &str); 5] = [
    ("warm before the boot asked", "s2"),
    ("half-way when the boot asked", "s4"),
    ("asked for by the boot first", "s1"),
    ("never asked for", "s7"),
    ("neither warmed nor asked for", "s3"),
];
/// What is listed of what was missed.
const MISSED_SHOWN: usize = 24;
const LEFT: f64 = 40.0;
const TOP: f64 = 18.0;
const HEIGHT: f64 = 220.0;
const BASE: f64 = HEIGHT - 38.0;

/// The whole page.
pub fn page(report: &EffectReport) -> String {
    let title = format!("effect on {}", report.device);
    parts::page(&title, |html| head(html, report), |html| body(html, report))
}

/// Units that the boot asked for, whether the profile has them or not.
fn asked(report: &EffectReport) -> u64 {
    let totals = &report.totals;
    totals.before + totals.late + totals.after + report.missed_units
}

fn head(html: &mut Html, report: &EffectReport) {
    html.raw("<p class=\"kind\">ebs-prewarm effect: what the warming did for this boot</p>");
    html.leaf("h1", &[], &report.device);
    let (before, asked) = (report.totals.before, asked(report));
    let (mood, text) = match asked {
        0 => (Mood::Doubtful, "the boot asked for nothing that was seen".to_string()),
        asked => {
            let share = before as f64 / asked as f64;
            let mood = if share >= 0.9 { Mood::Good } else { Mood::Doubtful };
            (mood, format!("{:.1} % of what the boot asked for was warm by then", 100.0 * share))
        }
    };
    parts::status(html, mood, &text);
    html.open("p", &[]).text("Profile ").leaf("b", &[], &report.profile);
    html.text(&format!(", units of {}; the warming ended: {}", ByteSize(report.unit_bytes), report.end));
    html.close("p");
}

fn body(html: &mut Html, report: &EffectReport) {
    if !report.notes.is_empty() {
        parts::section(html, "notes", "To be noted", |html| parts::lines(html, "plain", &report.notes));
    }
    tiles(html, report);
    html.raw("\n<div class=\"columns\">");
    states(html, "all", "Who was first", &report.totals);
    curves(html, report);
    if report.stages.len() > 1 {
        for (id, stage) in
            ["first", "second", "third", "fourth", "fifth", "sixth"].into_iter().zip(&report.stages)
        {
            states(html, id, &format!("Stage {}", stage.name), stage);
        }
    }
    html.raw("</div>");
    missed(html, report);
}

fn tiles(html: &mut Html, report: &EffectReport) {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let totals = &report.totals;
    let all = [
        ("warm in time", count(totals.before), format!("of {} units asked for", count(asked(report)))),
        ("waiting avoided", span(report.stall_avoided_s), "summed over all who would have waited".into()),
        ("waiting suffered", span(report.stall_suffered_s), "for units that were not warm".into()),
        ("missed", count(report.missed_units), "units that the profile lacks".into()),
        ("own reads", percent(report.share_of_reads()), format!("{} reads", count(report.own.reads))),
        ("own bytes", percent(report.share_of_bytes()), human_bytes(report.own.bytes_read)),
        ("own processor time", percent(report.share_of_cpu()), span(report.own.cpu_s)),
    ];
    parts::tiles(html, &all);
}

fn states(html: &mut Html, id: &'static str, title: &str, stage: &StageEffect) {
    let bar = |((name, class), (_, units)): (&(&str, &'static str), (&str, u64))| Bar {
        name: (*name).into(),
        value: units as f64,
        shown: count(units),
        remarks: Vec::new(),
        class,
        best: false,
    };
    let bars: Vec<Bar> = STATES.iter().zip(stage.by_state()).map(bar).collect();
    parts::section(html, id, title, |html| {
        html.leaf("p", &[("class", "soft")], &format!("{} units of the plan.", count(stage.units)));
        parts::bars(html, &bars);
    });
}

/// How many units were warm by when, and how many the boot had asked for.
fn curves(html: &mut Html, report: &EffectReport) {
    let both = || report.warm_by.iter().chain(&report.asked_by);
    let Some(end) = both().map(|(s, _)| *s).reduce(f64::max) else { return };
    let most = svg::round_up(both().map(|(_, units)| *units as f64).fold(1.0, f64::max));
    let x = Scale { values: (0.0, end), places: (LEFT, WIDTH - 10.0) };
    let y = Scale { values: (0.0, most), places: (BASE, TOP) };
    let words = format!(
        "Units over time: all that became warm were so {}, the boot had asked for all that it asked for {} after the kernel began.",
        span(report.warm_by.last().map_or(0.0, |(s, _)| *s)),
        span(report.asked_by.last().map_or(0.0, |(s, _)| *s)),
    );
    parts::section(html, "race", "Ahead of the boot", |html| {
        html.raw("<ul class=\"legend\"><li><span class=\"key s2\"></span>warm</li>");
        html.raw("<li><span class=\"key s0\"></span>asked for by the boot</li></ul>");
        svg::chart(html, HEIGHT, "curves", &words, |html| {
            for share in [0.0, 0.5, 1.0] {
                let place = y.at(most * share);
                let class = if share == 0.0 { "axis" } else { "grid" };
                svg::line(html, (LEFT, place), (WIDTH - 10.0, place), class);
                svg::label(html, (LEFT - 6.0, place + 4.0), "soft", "end", &n(most * share));
            }
            for (curve, class) in [(&report.warm_by, "line s2"), (&report.asked_by, "line s0 dashed")] {
                let points: Vec<(f64, f64)> =
                    curve.iter().map(|(s, units)| (x.at(*s), y.at(*units as f64))).collect();
                html.void("path", &[("class", class), ("d", &svg::path_of(&points))]);
            }
            svg::label(html, (LEFT, BASE + 15.0), "soft", "start", "0 s");
            svg::label(html, (WIDTH - 10.0, BASE + 15.0), "soft", "end", &span(end));
            svg::label(html, (WIDTH / 2.0, BASE + 30.0), "soft", "middle", "since the kernel began");
        });
    });
}

fn missed(html: &mut Html, report: &EffectReport) {
    if report.missed.is_empty() {
        return;
    }
    parts::section(html, "missed", "What the profile lacks", |html| {
        let text = format!(
            "{} units; the first of what was asked for. `ebs-prewarm profile fold` adds them.",
            count(report.missed_units)
        );
        html.leaf("p", &[], &text);
        html.open("ul", &[("class", "plain")]);
        for missed in report.missed.iter().take(MISSED_SHOWN) {
            let took =
                missed.latency_us.map_or_else(String::new, |took| format!(", took {}", us(took.into())));
            let line = format!(
                "{}: {} at {} by {}, stage {}{took}",
                span(missed.at_s),
                human_bytes(missed.sectors * SECTOR_BYTES),
                human_bytes(missed.start_sector * SECTOR_BYTES),
                missed.process,
                missed.stage,
            );
            html.leaf("li", &[], &line);
        }
        html.close("ul");
    });
}
