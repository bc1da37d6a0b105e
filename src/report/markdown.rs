//! Reports as Markdown, for an issue or a wiki.
//!
//! Holds: text from outside is escaped, so that it cannot become a link, a table or markup.

use super::page::{count, dollars, evidence, rate, span, us};
use super::{BenchReport, MethodReport, SweepReport, WarmReport, alternatives, mb_per_s};
use crate::units::{ByteSize, SECTOR_BYTES, human_bytes};
use std::fmt::Write;

/// Characters of the longest bar.
const BAR: usize = 24;
/// Characters of a row of the map, and rows at the most.
const MAP_COLUMNS: usize = 64;
const MAP_ROWS: usize = 16;

/// Text of any origin, as one line.
fn text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '<' | '>' | '#' | '|' | '~' | '!' | '&'
            | '$' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                out.push('\u{fffd}')
            }
            _ if c.is_control() => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
    out
}

fn bar(value: f64, most: f64) -> String {
    let wide = (value / most.max(f64::MIN_POSITIVE) * BAR as f64).round() as usize;
    "\u{2588}".repeat(wide.clamp(usize::from(value > 0.0), BAR))
}

/// A table: names of columns, then rows.
fn table(out: &mut String, columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let _ = writeln!(out, "| {} |", columns.join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(columns.len()));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out.push('\n');
}

fn list<'a>(out: &mut String, title: &str, lines: impl IntoIterator<Item = &'a String>) {
    let lines: Vec<&String> = lines.into_iter().collect();
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "## {title}\n");
    for line in lines {
        let _ = writeln!(out, "- {}", text(line));
    }
    out.push('\n');
}

fn prices(out: &mut String, volume_bytes: u64, ours: &str) {
    let _ = writeln!(out, "## What the alternatives cost for this volume\n");
    let us = vec!["ebs-prewarm".into(), "$0".into(), ours.into(), "measured here".into()];
    let others = alternatives(volume_bytes).into_iter().map(|other| {
        let takes = match other.takes_s {
            None => "warm from the start".to_string(),
            Some((least, most)) if least == most => span(least),
            Some((least, most)) => format!("{} to {}", span(least), span(most)),
        };
        let price = format!("{} {}", dollars(other.usd), other.per);
        vec![other.name.into(), price, format!("{takes}; {}", other.remark), other.source.into()]
    });
    table(out, &["way", "price", "the whole volume", "source"], [us].into_iter().chain(others));
}

/// Of a `bench`.
pub fn bench_markdown(report: &BenchReport) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "# bench of {}: {}\n", text(&report.device), text(&report.end));
    if !report.storage.kind.is_empty() {
        let (kind, known) = (text(&report.storage.kind), text(&report.storage.known));
        let _ = writeln!(out, "Storage: {kind}: {known}\n");
    }
    if let Some(error) = &report.error {
        let _ = writeln!(out, "{}\n", text(error));
    }
    list(&mut out, "What spoilt this run", &report.evidence.spoilt);
    if report.evidence.units > 0 {
        measured(&mut out, report);
    }
    let volume_bytes = report.volume.as_ref().map_or(0, |volume| volume.sectors * SECTOR_BYTES);
    if volume_bytes > 0 {
        let ours = report.recommended.as_ref().map_or_else(
            || "nothing to recommend was found".into(),
            |best| span(volume_bytes as f64 / best.hydrated_bytes_per_s.max(1.0)),
        );
        prices(&mut out, volume_bytes, &ours);
    }
    list(&mut out, "Notes", &report.notes);
    out
}

fn measured(out: &mut String, report: &BenchReport) {
    if let Some(best) = &report.recommended {
        let unit = ByteSize(best.unit_bytes);
        let (mode, depth, reason) = (&best.mode, best.depth, text(&best.reason));
        let _ = writeln!(out, "**Recommended: `--mode {mode} --unit {unit} --depth {depth}`**: {reason}.\n");
    }
    list(out, "Evidence", &evidence(report));
    let _ = writeln!(out, "## How long a read takes\n");
    let row = |name: &str, latency: &super::LatencyUs| {
        let all = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max];
        [name.to_string()].into_iter().chain(all.map(us)).collect::<Vec<_>>()
    };
    let rows = [row("first", &report.cold_latency_us), row("repeated", &report.warm_latency_us)];
    table(out, &["read", "p50", "p90", "p99", "p99.9", "max"], rows);
    let _ = writeln!(out, "## What each way hydrates\n");
    let most = report.methods.iter().map(|method| method.hydrated_bytes_per_s).fold(0.0, f64::max);
    let rows = report.shown_methods().map(|method| method_row(method, most));
    table(out, &["method", "hydrates", "", "read", "elapsed", "checked warm", "p50", "p99", "max"], rows);
    for method in &report.methods {
        if let Some(error) = &method.error {
            let _ = writeln!(out, "{}: {}\n", text(&method.name), text(error));
        }
        if method.errors > 0 {
            let (name, errors, stalled) = (text(&method.name), method.errors, method.stalled);
            let _ = writeln!(out, "{name}: {errors} reads failed, {stalled} of them stalled\n");
        }
    }
    for sweep in report.sweeps.iter().filter(|sweep| !sweep.points.is_empty()) {
        depths(out, sweep);
    }
}

fn method_row(method: &MethodReport, most: f64) -> Vec<String> {
    let latency = &method.latency_us;
    let shown = |latency_us: u64| if method.depth.is_some() { us(latency_us) } else { String::new() };
    vec![
        text(&method.name),
        mb_per_s(method.hydrated_bytes_per_s),
        bar(method.hydrated_bytes_per_s, most),
        human_bytes(method.bytes_read),
        span(method.elapsed_s),
        format!("{} of {}", method.checked.warm, method.checked.blocks),
        shown(latency.p50),
        shown(latency.p99),
        shown(latency.max),
    ]
}

fn depths(out: &mut String, sweep: &SweepReport) {
    let _ = writeln!(out, "## How many reads at once: {}\n", text(&sweep.mode));
    let most = sweep.points.iter().map(|point| point.hydrated_bytes_per_s).fold(0.0, f64::max);
    let rows = sweep.points.iter().map(|point| {
        let rate = point.hydrated_bytes_per_s;
        let knee = match sweep.knee == Some(point.depth) {
            true if sweep.knee_certain => "**knee**",
            true => "knee so far",
            false => "",
        };
        vec![point.depth.to_string(), mb_per_s(rate), bar(rate, most), knee.into()]
    });
    table(out, &["depth", "hydrates", "", ""], rows);
}

/// Of a `warm`.
pub fn warm_markdown(report: &WarmReport) -> String {
    let mut out = String::new();
    let totals = &report.totals;
    let _ = writeln!(out, "# warm of {}: {}\n", text(&report.device), text(&report.end));
    if let Some(error) = &report.error {
        let _ = writeln!(out, "{}\n", text(error));
    }
    let units = totals.units.saturating_sub(totals.units_left);
    if report.map.units > 0 {
        let (read, of) = (count(units), count(totals.units));
        let unit = ByteSize(report.unit_bytes);
        let _ = writeln!(
            out,
            "{read} of {of} units of {unit} read in {}: {} if all was cold. {} mode, {}.\n",
            span(totals.elapsed_s),
            mb_per_s(rate(report)),
            text(&report.mode),
            text(&report.engine)
        );
    }
    if totals.verified > 0 {
        let good = totals.verified - totals.verify_failed;
        let _ = writeln!(out, "Verified: {good} of {} sampled units are warm throughout.\n", totals.verified);
    }
    if totals.reads > 0 {
        stages(&mut out, report);
        map(&mut out, report);
    }
    let bad = report.unreadable.iter();
    let bad: Vec<String> =
        bad.map(|bad| format!("sector {} +{}: {}", bad.start_sector, bad.sectors, bad.error)).collect();
    list(&mut out, &format!("Could not be read: {} blocks", count(totals.errors)), &bad);
    if report.map.volume_bytes > 0 {
        let ours = format!("{} for {} units", span(totals.elapsed_s), count(units));
        prices(&mut out, report.map.volume_bytes, &ours);
    }
    list(&mut out, "Notes", &report.notes);
    out
}

fn stages(out: &mut String, report: &WarmReport) {
    let _ = writeln!(out, "## Stages\n");
    let rows = report.stages.iter().enumerate().map(|(at, stage)| {
        vec![
            sign(at).to_string(),
            text(&stage.name),
            count(stage.units),
            count(stage.units_left),
            count(stage.reads),
            human_bytes(stage.bytes),
            stage.started_s.map_or_else(|| "never".into(), span),
            span(stage.elapsed_s),
        ]
    });
    table(out, &["map", "stage", "units", "not read", "reads", "bytes", "began after", "took"], rows);
    let latency = &report.latency_us;
    let _ = writeln!(
        out,
        "Latency: p50 {}, p90 {}, p99 {}, max {}. Depth: {} to {}, at most {}.\n",
        us(latency.p50),
        us(latency.p90),
        us(latency.p99),
        us(latency.max),
        report.depth.initial,
        report.depth.last,
        report.depth.max
    );
}

/// What a stage is called on the map.
fn sign(stage: usize) -> char {
    char::from(b'A' + (stage % 26) as u8)
}

fn map(out: &mut String, report: &WarmReport) {
    let map = &report.map;
    let cells = map.units.div_ceil(map.cell_units.max(1)) as usize;
    let each = cells.div_ceil(MAP_COLUMNS * MAP_ROWS).max(1);
    let some = |cells: &[u64], from: usize| -> u64 { cells.iter().skip(from).take(each).sum() };
    let mut row = String::new();
    let _ = writeln!(out, "## The volume\n\n```text");
    for from in (0..cells).step_by(each) {
        let read_by = |at: &usize| {
            let left = map.left.get(*at).map_or(0, |cells| some(&cells.0, from));
            some(&map.planned[*at].0, from) > left
        };
        // The earliest stage is told: what is most urgent.
        let stage = (0..map.planned.len()).find(read_by);
        row.push(match stage {
            _ if some(&map.unreadable.0, from) > 0 => 'x',
            Some(stage) => sign(stage),
            None if map.planned.iter().any(|cells| some(&cells.0, from) > 0) => '?',
            None => '.',
        });
        if row.len() == MAP_COLUMNS {
            let _ = writeln!(out, "{row}");
            row.clear();
        }
    }
    let each = human_bytes(each as u64 * map.cell_units * report.unit_bytes);
    let line = if row.is_empty() { String::new() } else { row + "\n" };
    let _ = writeln!(
        out,
        "{line}```\n\nA letter is {each} of which something was read, by its first stage; `.` was not asked for, `?` not \
         read, `x` is unreadable.\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Cells, StageReport, Totals, VolumeMap};
    use proptest::prelude::*;

    #[test]
    fn text_from_outside_is_escaped() {
        assert_eq!(text("a|b\n<i>[x](y)`"), "a\\|b \\<i\\>\\[x\\](y)\\`");
        assert_eq!(
            (bar(0.0, 1.0), bar(0.001, 1.0), bar(1.0, 1.0).chars().count()),
            ("".into(), "\u{2588}".into(), BAR)
        );
    }

    #[test]
    fn the_map_tells_each_cell_by_its_first_stage() {
        let stage = |name: &str| StageReport { name: name.into(), units: 2, ..StageReport::default() };
        let report = WarmReport {
            unit_bytes: 1 << 19,
            stages: vec![stage("one"), stage("two")],
            totals: Totals { reads: 4, ..Totals::default() },
            map: VolumeMap {
                volume_bytes: 70 << 19,
                units: 70,
                cell_units: 1,
                planned: vec![Cells(vec![1, 0, 1]), Cells(vec![0, 1, 0, 1])],
                left: vec![Cells(vec![]), Cells(vec![0, 0, 0, 1])],
                unreadable: Cells(vec![0, 1]),
            },
            ..WarmReport::default()
        };
        let told = warm_markdown(&report);
        let rest = ".".repeat(60);
        assert!(told.contains(&format!("```text\nAxA?{rest}\n......\n```")), "{told}");
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_line(given in any::<String>()) {
            let told = text(&given);
            prop_assert!(!told.contains('\n') && !told.contains('\r'));
            let bytes = told.as_bytes();
            for (at, _) in told.match_indices(['|', '<', '[', '`']) {
                prop_assert!(at > 0 && bytes[at - 1] == b'\\');
            }
        }
    }
}
