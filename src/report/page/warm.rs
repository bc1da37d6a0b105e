//! The page of a `warm`.

use super::bench::cell_words;
use super::html::Html;
use super::latency::{self, Row};
use super::map::{CLASSES, Drawing, Layer, capacity};
use super::panels::{self, Panel};
use super::parts::{self, Mood, Span};
use super::svg::{count, span, us};
use crate::report::{StageReport, WarmReport, mb_per_s};
use crate::units::{ByteSize, SECTOR_BYTES, human_bytes};

/// The stage that holds what no profile names has a colour that stands back.
const REST: &str = "rest";

/// The whole page.
pub fn page(report: &WarmReport) -> String {
    let title = format!("warm of {}: {}", report.device, report.end);
    parts::page(&title, |html| head(html, report), |html| body(html, report))
}

fn head(html: &mut Html, report: &WarmReport) {
    html.raw("<p class=\"kind\">ebs-prewarm warm: what was warmed</p>");
    html.leaf("h1", &[], &report.device);
    let totals = &report.totals;
    let troubled = totals.errors > 0 || totals.units_left > 0 || report.unit_is_wrong;
    let mood = match report.is_complete() {
        true if troubled => Mood::Doubtful,
        true => Mood::Good,
        false => Mood::Bad,
    };
    parts::status(html, mood, &report.end);
    if !report.profile.is_empty() {
        html.open("p", &[]).text("Profile ").leaf("b", &[], &report.profile);
        html.text(&format!(", {} mode, {}", report.mode, report.engine)).close("p");
    } else if !report.mode.is_empty() {
        html.leaf("p", &[], &format!("No profile, {} mode, {}", report.mode, report.engine));
    }
    if let Some(error) = &report.error {
        html.leaf("pre", &[], error);
    }
}

fn body(html: &mut Html, report: &WarmReport) {
    if !report.notes.is_empty() || report.totals.errors > 0 {
        notes(html, report);
    }
    if report.map.units > 0 {
        tiles(html, report);
        map(html, report);
    }
    if report.totals.reads > 0 {
        html.raw("\n<div class=\"columns\">");
        stages(html, report);
        latencies(html, report);
        over_time(html, report);
        verification(html, report);
        html.raw("</div>");
    }
    if report.map.volume_bytes > 0 {
        parts::prices(html, report.map.volume_bytes, &ours(report));
    }
    details(html, report);
}

/// Units of which all was read.
fn read(report: &WarmReport) -> u64 {
    report.totals.units.saturating_sub(report.totals.units_left)
}

/// What was hydrated a second, if it was cold.
pub fn rate(report: &WarmReport) -> f64 {
    let bytes = report.series.last().map_or(0, |(_, bytes, _)| *bytes);
    bytes as f64 / report.totals.elapsed_s.max(1e-9)
}

fn ours(report: &WarmReport) -> String {
    let (units, of) = (count(read(report)), human_bytes(read(report) * report.unit_bytes));
    let share = 100.0 * read(report) as f64 / report.map.units.max(1) as f64;
    let took = span(report.totals.elapsed_s);
    format!("{took} for {units} units, {of}: {share:.1} % of the volume")
}

fn notes(html: &mut Html, report: &WarmReport) {
    html.raw("\n<section class=\"card callout\" aria-labelledby=\"notes\">");
    html.leaf("h2", &[("id", "notes")], "To be noted");
    parts::lines(html, "plain", &report.notes);
    if report.totals.errors > 0 {
        let blocks = count(report.totals.errors);
        html.leaf("p", &[], &format!("{blocks} blocks could not be read; the first of them:"));
        html.open("ul", &[("class", "plain")]);
        for bad in report.unreadable.iter().take(16) {
            let place = human_bytes(bad.start_sector * SECTOR_BYTES);
            let text = format!("sector {} +{} (at {place}): {}", bad.start_sector, bad.sectors, bad.error);
            html.leaf("li", &[], &text);
        }
        html.close("ul");
    }
    html.raw("</section>");
}

fn tiles(html: &mut Html, report: &WarmReport) {
    let totals = &report.totals;
    let of = |part: u64, all: u64| format!("{} of {}", count(part), count(all));
    // Long after a boot the time since then says nothing.
    let began = match report.first_read_uptime_s {
        soon if soon < 600.0 => format!("first read {} after the kernel began", span(soon)),
        _ => format!("{} reads", count(totals.reads)),
    };
    let mut all = vec![
        ("units read", of(read(report), totals.units), ByteSize(report.unit_bytes).to_string() + " each"),
        ("took", span(totals.elapsed_s), began),
    ];
    if rate(report) > 0.0 {
        let read = format!("if all was cold; {} read", human_bytes(totals.bytes_read));
        all.push(("hydrated at", mb_per_s(rate(report)), read));
    }
    if totals.verified > 0 {
        let good = totals.verified - totals.verify_failed;
        all.push(("verified warm", of(good, totals.verified), "a sample, read again elsewhere".into()));
    }
    if let Some(warm) = totals.already_warm.filter(|warm| *warm > 0) {
        all.push(("already warm", count(warm), "units, at the least".into()));
    }
    let failed = if totals.errors == 0 { "none".into() } else { format!("{} blocks", count(totals.errors)) };
    all.push(("could not be read", failed, format!("{} reads were repeated", count(totals.retries))));
    parts::tiles(html, &all);
}

fn class_of(at: usize, stage: &StageReport) -> &'static str {
    if stage.name == REST { "s7" } else { CLASSES[at % CLASSES.len()] }
}

/// When a stage ended, since the first read.
fn ended_s(stage: &StageReport) -> Option<f64> {
    stage.started_s.map(|started_s| started_s + stage.elapsed_s)
}

fn map(html: &mut Html, report: &WarmReport) {
    let map = &report.map;
    let capacity = capacity(map.units, map.cell_units);
    let mut left = vec![0; capacity.len()];
    let mut layers = Vec::new();
    for (at, (stage, planned)) in report.stages.iter().zip(&map.planned).enumerate() {
        let mut cells = planned.0.clone();
        let not_read = map.left.get(at).map_or(&[][..], |cells| &cells.0);
        for ((cell, missing), sum) in cells.iter_mut().zip(not_read).zip(&mut left) {
            *cell = cell.saturating_sub(*missing);
            *sum += missing;
        }
        let done: u64 = cells.iter().sum();
        let when = ended_s(stage).map_or_else(|| "never begun".into(), |s| format!("by {}", span(s)));
        let note = format!("{} units, {when}", count(done));
        layers.push(Layer { name: stage.name.clone(), note, class: class_of(at, stage), cells });
    }
    let drawing = Drawing {
        capacity,
        layers,
        left,
        unreadable: map.unreadable.0.clone(),
        fills_up: true,
        cell: cell_words(map.units, map.cell_units, report.unit_bytes),
        empty: "not asked for",
    };
    parts::section(html, "places", "The volume, stage by stage", |html| drawing.draw(html));
}

fn stages(html: &mut Html, report: &WarmReport) {
    let spans: Vec<Span> = report
        .stages
        .iter()
        .enumerate()
        .map(|(at, stage)| Span {
            name: stage.name.clone(),
            note: format!(
                "{} units in {}",
                count(stage.units - stage.units_left.min(stage.units)),
                span(stage.elapsed_s)
            ),
            from_to: stage.started_s.zip(ended_s(stage)),
            class: class_of(at, stage),
        })
        .collect();
    parts::section(html, "when", "When each stage was read", |html| parts::timeline(html, &spans));
}

fn latencies(html: &mut Html, report: &WarmReport) {
    let latency = &report.latency_us;
    let mut marks = vec![
        (latency.p50, format!("p50 {}", us(latency.p50))),
        (latency.p99, format!("p99 {}", us(latency.p99))),
    ];
    marks.extend(report.warm_latency_us.map(|warm| (warm, format!("a warm read {}", us(warm)))));
    let row = Row { name: "these reads", bins: &report.latency_bins, marks, class: "s0" };
    if row.bins.reads() == 0 {
        return;
    }
    parts::section(html, "latencies", "How long reads took", |html| {
        html.leaf(
            "p",
            &[("class", "soft")],
            "With all others that were in flight; each decade is as wide as the next.",
        );
        latency::draw(html, &[row]);
    });
}

fn over_time(html: &mut Html, report: &WarmReport) {
    let series: Vec<(f64, f64)> = report.series.iter().map(|(s, bytes, _)| (*s, *bytes as f64)).collect();
    let steps = panels::rates(&series);
    if steps.is_empty() {
        return;
    }
    let rate = Panel { name: "hydration rate".into(), note: mb_per_s(rate(report)), steps, class: "s0" };
    let pairs = report.series.windows(2);
    let steps = pairs.map(|two| (two[0].0, two[1].0, f64::from(two[1].2))).collect();
    let depth = &report.depth;
    let note = format!("{} to {}, at most {}", depth.initial, depth.last, depth.max);
    let depth = Panel { name: "reads in flight, at most".into(), note, steps, class: "s3" };
    parts::section(html, "rate", "Rate and depth over time", |html| {
        panels::draw(html, "rates", "Hydration rate over time", &[rate], mb_per_s);
        panels::draw(html, "depth", "Reads in flight over time", &[depth], |value| format!("{value:.0}"));
    });
}

fn verification(html: &mut Html, report: &WarmReport) {
    let totals = &report.totals;
    parts::section(html, "verified", "Is it warm?", |html| {
        if totals.verified == 0 {
            let why = if report.mode == "full" {
                "Every byte was read: there is nothing to guess."
            } else {
                "No unit was read again."
            };
            html.leaf("p", &[], why);
            return;
        }
        let good = totals.verified - totals.verify_failed;
        let words = format!("{good} of {} sampled units are warm throughout", totals.verified);
        html.open("p", &[("class", "checks"), ("role", "img"), ("aria-label", &words)]);
        for _ in 0..good.min(64) {
            html.raw("<span class=\"good\">\u{2713}</span>");
        }
        for _ in 0..totals.verify_failed.min(64) {
            html.raw("<span class=\"bad\">\u{2717}</span>");
        }
        html.close("p").leaf(
            "p",
            &[],
            &format!("{words}: a block far from the one touched was read in each."),
        );
        if let Some(warm) = report.warm_latency_us {
            html.leaf("p", &[("class", "soft")], &format!("A warm read took {} at the median.", us(warm)));
        }
    });
}

fn details(html: &mut Html, report: &WarmReport) {
    let totals = &report.totals;
    let some = |number: u64, what: &str| match number {
        0 => String::new(),
        some => format!("{} {what}", count(some)),
    };
    let all = [
        ("reads", format!("{}, {}", count(totals.reads), human_bytes(totals.bytes_read))),
        ("processor", span(totals.cpu_s)),
        ("slowest read", us(report.latency_us.max)),
        ("done by an earlier run", some(totals.resumed, "reads")),
        ("left to the boot", some(totals.taken, "reads, whose units it had read itself")),
        ("not waited for", some(report.abandoned, "reads")),
        (
            "stood back for others",
            if totals.held_back_s > 0.0 { span(totals.held_back_s) } else { String::new() },
        ),
        ("engine", report.engine.clone()),
    ];
    parts::details(html, &all);
}
