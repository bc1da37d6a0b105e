//! The page of a `bench`.

use super::html::Html;
use super::latency::{self, Row};
use super::map::{CLASSES, Drawing, Layer, capacity};
use super::panels::{self, Panel};
use super::parts::{self, Bar, Mood};
use super::svg::{count, span, us};
use super::sweep;
use crate::report::{BenchReport, MethodReport, VolumeMap, confidence, mb_per_s, percent};
use crate::units::{ByteSize, SECTOR_BYTES, human_bytes};

/// The whole page.
pub fn page(report: &BenchReport) -> String {
    let title = format!("bench of {}: {}", report.device, report.end);
    parts::page(&title, |html| head(html, report), |html| body(html, report))
}

fn head(html: &mut Html, report: &BenchReport) {
    html.raw("<p class=\"kind\">ebs-prewarm bench: how this volume hydrates</p>");
    html.leaf("h1", &[], &report.device);
    let spoilt = !report.evidence.spoilt.is_empty();
    let mood = match report.end.as_str() {
        "complete" if !spoilt => Mood::Good,
        "needs no warming" => Mood::Good,
        "complete" | "measuring" | "stopped" => Mood::Doubtful,
        _ => Mood::Bad,
    };
    let text = match report.end.as_str() {
        "complete" if spoilt => "complete, but spoilt",
        end => end,
    };
    parts::status(html, mood, text);
    let volume = &report.storage;
    let id = volume.volume_id.as_ref().map_or_else(String::new, |id| format!(" {id}"));
    let size = match volume_bytes(report) {
        0 => String::new(),
        bytes => format!(", {}", human_bytes(bytes)),
    };
    if !volume.kind.is_empty() {
        html.leaf("p", &[], &format!("Storage: {}{id}{size}: {}", volume.kind, volume.known));
    }
    if let Some(error) = &report.error {
        html.leaf("pre", &[], error);
    }
}

fn volume_bytes(report: &BenchReport) -> u64 {
    report.volume.as_ref().map_or(0, |volume| volume.sectors * SECTOR_BYTES)
}

fn body(html: &mut Html, report: &BenchReport) {
    let errors = report.methods.iter().filter_map(|method| {
        let failed = (method.errors > 0).then(|| {
            format!("{}: {} reads failed, {} of them stalled", method.name, method.errors, method.stalled)
        });
        method.error.as_ref().map(|error| format!("{}: {error}", method.name)).or(failed)
    });
    let spoilt: Vec<String> = report.evidence.spoilt.iter().cloned().chain(errors).collect();
    if !spoilt.is_empty() {
        html.raw("\n<section class=\"card callout\" aria-labelledby=\"spoilt\">");
        html.leaf("h2", &[("id", "spoilt")], "What spoilt this run");
        parts::lines(html, "plain", &spoilt);
        html.raw("</section>");
    }
    if report.evidence.units > 0 {
        tiles(html, report);
        html.raw("\n<div class=\"columns\">");
        recommended(html, report);
        methods(html, report);
        latencies(html, report);
        sweeps(html, report);
        rates(html, report);
        html.raw("</div>");
        map(html, report);
    }
    if volume_bytes(report) > 0 {
        parts::prices(html, volume_bytes(report), &ours(report));
    }
    details(html, report);
}

fn ours(report: &BenchReport) -> String {
    match &report.recommended {
        Some(best) => {
            let whole = volume_bytes(report) as f64 / best.hydrated_bytes_per_s.max(1.0);
            let rate = mb_per_s(best.hydrated_bytes_per_s);
            format!("{} for the whole volume at {rate}; a profile takes its share of that", span(whole))
        }
        None => "nothing to recommend was found".into(),
    }
}

fn tiles(html: &mut Html, report: &BenchReport) {
    let mut all = Vec::new();
    if let Some(best) = &report.recommended {
        let rate = mb_per_s(best.hydrated_bytes_per_s);
        all.push(("hydrates at", rate, format!("{} at depth {}", best.mode, best.depth)));
    }
    let (unit, remark) = match report.unit.bytes {
        Some(bytes) => {
            (ByteSize(bytes).to_string(), format!("{} confidence", confidence(report.unit.confidence)))
        }
        None => ("cannot tell".into(), report.why.clone().unwrap_or_default()),
    };
    all.push(("unit of hydration", unit, remark));
    let (cold, warm) = (&report.cold_latency_us, &report.warm_latency_us);
    all.push(("a first read", us(cold.p50), format!("median; 1 in 100 takes {} or more", us(cold.p99))));
    all.push(("the same again", us(warm.p50), format!("median; {:.0} times faster", report.evidence.ratio)));
    let share = &report.evidence.cold_share;
    let low = percent(share.low);
    let range = format!("{} to {}", low.trim_end_matches(" %"), percent(share.high).replace(' ', "\u{a0}"));
    all.push(("was cold", range, format!("{} of {} first reads", share.cold, share.first_reads)));
    parts::tiles(html, &all);
}

fn recommended(html: &mut Html, report: &BenchReport) {
    parts::section(html, "recommended", "Recommendation", |html| {
        match &report.recommended {
            Some(best) => {
                let unit = ByteSize(best.unit_bytes);
                html.leaf(
                    "pre",
                    &[],
                    &format!(
                        "ebs-prewarm warm --mode {} --unit {unit} --depth {} \u{2026}",
                        best.mode, best.depth
                    ),
                );
                html.open("p", &[]).text(&sentence(&best.reason)).close("p");
            }
            None => {
                html.leaf("p", &[], "None: not enough was measured for one.");
            }
        }
        html.leaf("h3", &[], "Evidence");
        parts::lines(html, "plain", &evidence(report));
    });
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", chars.as_str())
}

/// Why it is called cold, and its unit what it is.
pub fn evidence(report: &BenchReport) -> Vec<String> {
    let evidence = &report.evidence;
    let (share, p99) = (&evidence.cold_share, report.cold_p99_us);
    let mut all = vec![format!(
        "{} of {} blocks, drawn from {}, were cold when they were read first: {} to {} of the volume, with 95 % \
         confidence.",
        share.cold,
        share.first_reads,
        report.drawn_from,
        percent(share.low),
        percent(share.high)
    )];
    if let Some(cut) = evidence.cut_us {
        all.push(format!("Reads that took longer than {} were cold; the latencies part there.", us(cut)));
    }
    if evidence.ratio > 0.0 {
        let p99 = match p99 {
            (low, 0) => format!("is {} at the least; so few reads do not tell what at the most", us(low)),
            (low, high) => format!("lies between {} and {}", us(low), us(high)),
        };
        all.push(format!(
            "{} units were read for the first time, one at a time; the {} cold ones of them took {:.0} times as long as \
             a repeated read; their 99th percentile {p99}.",
            count(evidence.units),
            count(evidence.cold_units),
            evidence.ratio
        ));
    }
    match (report.unit.bytes, &report.why) {
        (Some(bytes), _) => all.push(format!(
            "The unit is {}, with {} confidence, from neighbours of cold blocks at several distances.",
            ByteSize(bytes),
            confidence(report.unit.confidence)
        )),
        (None, why) => all.push(format!(
            "The unit cannot be told: {}; {} was touched as one.",
            why.as_deref().unwrap_or("nothing was read"),
            ByteSize(report.touched_unit_bytes)
        )),
    }
    let (blocks, warm) = report
        .methods
        .iter()
        .fold((0, 0), |(blocks, warm), method| (blocks + method.checked.blocks, warm + method.checked.warm));
    all.push(format!("After the methods, {warm} of {blocks} blocks drawn from what they warmed were warm."));
    all
}

/// The colour of what a method is one of: those of one name have one.
fn class_of(report: &BenchReport, method: &MethodReport) -> &'static str {
    let at = groups(report).iter().position(|group| *group == base(method)).unwrap_or(0);
    CLASSES[at % CLASSES.len()]
}

fn base(method: &MethodReport) -> &str {
    method.name.split('@').next().unwrap_or_default()
}

/// Names of methods, those that differ in their depth as one.
fn groups(report: &BenchReport) -> Vec<&str> {
    // The two that are swept have the colours that they have in the chart of depths.
    let mut all: Vec<&str> = report.sweeps.iter().map(|sweep| sweep.mode.as_str()).collect();
    for method in &report.methods {
        if !all.contains(&base(method)) {
            all.push(base(method));
        }
    }
    all
}

fn methods(html: &mut Html, report: &BenchReport) {
    let best = report.recommended.as_ref().map(|best| format!("{}@{}", best.mode, best.depth));
    let mut all: Vec<Bar> =
        report.shown_methods().map(|method| bar(report, method, best.as_deref())).collect();
    all.sort_by(|one, other| other.value.total_cmp(&one.value));
    parts::section(html, "methods", "What each way hydrates", |html| {
        html.leaf(
            "p",
            &[("class", "soft")],
            "Bytes that become warm, a second, without the first and last round of reads where there were enough; each \
             way on its own part, which nobody had read.",
        );
        parts::bars(html, &all);
    });
}

fn bar(report: &BenchReport, method: &MethodReport, best: Option<&str>) -> Bar {
    let all = method.hydrated_bytes_per_s;
    let rate = method.steady_bytes_per_s.unwrap_or(all);
    let whole = if method.steady_bytes_per_s.is_some() {
        format!("{} in all, ", mb_per_s(all))
    } else {
        String::new()
    };
    let mut remarks = vec![
        format!("{whole}{} read, {}", human_bytes(method.bytes_read), span(method.elapsed_s)),
        format!("{} of {} checked blocks warm", method.checked.warm, method.checked.blocks),
    ];
    if method.depth.is_some() && method.latency_us.max > 0 {
        let latency = &method.latency_us;
        remarks.push(format!("p50 {}, p99 {}, max {}", us(latency.p50), us(latency.p99), us(latency.max)));
    }
    remarks.extend(method.command.as_ref().map(|command| format!("ran as: {command}")));
    Bar {
        name: method.name.clone(),
        value: rate,
        shown: mb_per_s(rate),
        remarks,
        class: class_of(report, method),
        best: best == Some(&method.name),
    }
}

fn latencies(html: &mut Html, report: &BenchReport) {
    let marks = |latency: &crate::report::LatencyUs| {
        vec![
            (latency.p50, format!("p50 {}", us(latency.p50))),
            (latency.p99, format!("p99 {}", us(latency.p99))),
        ]
    };
    let rows = [
        Row {
            name: "repeated reads: warm",
            bins: &report.warm_bins,
            marks: marks(&report.warm_latency_us),
            class: "s2",
        },
        Row {
            name: "first reads: cold",
            bins: &report.cold_bins,
            marks: marks(&report.cold_latency_us),
            class: "s0",
        },
    ];
    let rows: Vec<Row> = rows.into_iter().filter(|row| row.bins.reads() > 0).collect();
    if rows.is_empty() {
        return;
    }
    parts::section(html, "latencies", "How long a read takes", |html| {
        html.leaf("p", &[("class", "soft")], "First reads one at a time, repeated ones with up to three others in flight; each decade is as wide as the next.");
        latency::draw(html, &rows);
    });
}

fn sweeps(html: &mut Html, report: &BenchReport) {
    let sweeps: Vec<_> = report.sweeps.iter().filter(|sweep| !sweep.points.is_empty()).cloned().collect();
    if sweeps.is_empty() {
        return;
    }
    parts::section(html, "depths", "How many reads at once", |html| {
        html.open("ul", &[("class", "legend")]);
        for (at, sweep) in sweeps.iter().enumerate() {
            let sign = ["\u{25cf} ", "\u{25a0} "][at % 2];
            let knee = match sweep.knee {
                Some(knee) => {
                    let at = sweep.points.iter().find(|point| point.depth == knee);
                    let rate = at.map_or(0.0, |point| point.hydrated_bytes_per_s);
                    let is = match sweep.knee_certain {
                        true => "the smallest depth as good as the best",
                        false => "as far as was measured, which is not far enough to be certain",
                    };
                    format!("knee at {knee}, {}: {is}", mb_per_s(rate))
                }
                None => "no knee was found".into(),
            };
            html.open("li", &[]).raw(sign).leaf("b", &[], &sweep.mode).raw(" ").text(&knee).close("li");
        }
        html.close("ul");
        sweep::draw(html, &sweeps);
    });
}

fn rates(html: &mut Html, report: &BenchReport) {
    let with_series = report.shown_methods().filter(|method| method.series.len() > 1);
    let panels: Vec<Panel> = with_series
        .map(|method| {
            let series: Vec<(f64, f64)> =
                method.series.iter().map(|(s, bytes)| (*s, *bytes as f64)).collect();
            Panel {
                name: method.name.clone(),
                note: mb_per_s(method.hydrated_bytes_per_s),
                steps: panels::rates(&series),
                class: class_of(report, method),
            }
        })
        .collect();
    if panels.is_empty() {
        return;
    }
    parts::section(html, "rate", "Hydration rate over time", |html| {
        html.leaf(
            "p",
            &[("class", "soft")],
            "All on one scale of height; each over its own time, its parts one after the other.",
        );
        panels::draw(html, "rates", "Hydration rate over time", &panels, mb_per_s);
    });
}

fn map(html: &mut Html, report: &BenchReport) {
    let unit_bytes = report.map_unit_bytes.max(1);
    let units = volume_bytes(report).div_ceil(unit_bytes);
    let cell_units = VolumeMap::cell_units(units);
    let capacity = capacity(units, cell_units);
    let cells = |name: &str, class, runs: &mut dyn Iterator<Item = (u64, u64)>| {
        let mut cells = vec![0u64; capacity.len()];
        let mut all = 0;
        for unit in runs.flat_map(|(start, count)| start..start.saturating_add(count).min(units)) {
            all += 1;
            cells[(unit / cell_units) as usize] += 1;
        }
        let note = human_bytes(all * unit_bytes);
        Layer { name: name.into(), note, class, cells }
    };
    let mut layers: Vec<Layer> = Vec::new();
    for (at, group) in groups(report).into_iter().enumerate() {
        let theirs = report.methods.iter().filter(|method| base(method) == group);
        let mut runs = theirs.flat_map(|method| method.map.iter().copied());
        layers.push(cells(group, CLASSES[at % CLASSES.len()], &mut runs));
    }
    layers.push(cells("looked at first", "s7", &mut report.evidence.map.iter().copied()));
    layers.retain(|layer| layer.cells.iter().any(|units| *units > 0));
    let drawing = Drawing {
        capacity,
        layers,
        left: Vec::new(),
        unreadable: Vec::new(),
        fills_up: false,
        cell: cell_words(units, cell_units, unit_bytes),
        empty: "not read by this run",
    };
    parts::section(html, "places", "Which part of the volume each way had", |html| drawing.draw(html));
}

/// What a cell of a map stands for.
pub fn cell_words(units: u64, cell_units: u64, unit_bytes: u64) -> String {
    let unit = ByteSize(unit_bytes);
    match cell_units {
        1 => format!("Each cell is a unit of {unit}, in order of address, row by row."),
        many => format!(
            "Each cell is {} units of {unit} ({}), of {} in all, in order of address, row by row; it is filled by the \
             share that was read, to a fifth at the least so that little is seen too.",
            count(many),
            human_bytes(many * unit_bytes),
            count(units)
        ),
    }
}

fn details(html: &mut Html, report: &BenchReport) {
    let all = [
        ("engine", report.engine.clone()),
        ("drawn from", report.drawn_from.clone()),
        ("seed", report.seed.to_string()),
        ("machine", report.storage.machine.clone().unwrap_or_default()),
        ("attached as", report.storage.attached_as.clone().unwrap_or_default()),
        ("warm by looking", format!("{} units", count(report.evidence.probed_units))),
        ("kept for warm as", report.saved_as.clone().unwrap_or_default()),
        ("notes", report.notes.join("; ")),
    ];
    parts::details(html, &all);
}
