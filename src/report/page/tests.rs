//! Whole pages, as text. What a browser makes of them is tested with one (`tests/it/page.rs`).

use super::*;
use crate::report::markdown::bench_markdown;
use crate::report::{
    BenchReport, Bins, Cells, Evidence, LatencyUs, MethodReport, Recommended, StageReport, SweepPoint,
    SweepReport, Totals, Unreadable, VolumeMap, WarmReport, histogram_us,
};
use crate::volume::Identity;

const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=y>&amp;\u{202e}";

/// Of 500 GiB in units of 512 KiB: four stages scattered all over it, and the rest.
fn warm_500_gib() -> WarmReport {
    let (units, cell_units) = (1_024_000, VolumeMap::cell_units(1_024_000));
    let cells = units / cell_units;
    let stage =
        |at: u64| Cells((0..cells).map(|cell| u64::from((cell * 7 + at) % 5 == at) * (at + 1)).collect());
    let planned: Vec<Cells> =
        (0..4).map(stage).chain([Cells(vec![cell_units - 4; cells as usize])]).collect();
    let names = ["initrd", "sysinit", "ready", "later", "rest"];
    let stages = names.iter().zip(&planned).map(|(name, cells)| StageReport {
        name: (*name).into(),
        units: cells.0.iter().sum(),
        started_s: Some(1.0),
        elapsed_s: 2.0,
        ..StageReport::default()
    });
    let histogram = histogram_us((1..50_000).map(|n| n * 7_000));
    WarmReport {
        end: "complete".into(),
        device: "/dev/nvme1n1".into(),
        profile: "boot".into(),
        mode: "touch".into(),
        unit_bytes: 512 << 10,
        stages: stages.collect(),
        totals: Totals { units, reads: units, elapsed_s: 3800.0, verified: 16, ..Totals::default() },
        latency_us: LatencyUs::of(&histogram),
        latency_bins: Bins::of(&histogram),
        series: (0..=120)
            .map(|at| (f64::from(at) * 30.0, u64::from(at as u32) * 4_000_000_000, 64))
            .collect(),
        map: VolumeMap {
            volume_bytes: 500 << 30,
            units,
            cell_units,
            left: vec![Cells::default(); planned.len()],
            planned,
            unreadable: Cells::default(),
        },
        ..WarmReport::default()
    }
}

fn bench() -> BenchReport {
    let histogram = histogram_us((1..1000).map(|n| 30_000_000 + n * 10_000));
    let method = |name: &str, map: Vec<(u64, u64)>| MethodReport {
        name: name.into(),
        depth: Some(4),
        hydrated_bytes_per_s: 1e8,
        latency_us: LatencyUs::of(&histogram),
        series: (0..9).map(|at| (f64::from(at), u64::from(at as u32) * 1000)).collect(),
        map,
        ..MethodReport::default()
    };
    let point = |depth: u32| SweepPoint { depth, units: 9, hydrated_bytes_per_s: f64::from(depth) * 1e6 };
    BenchReport {
        end: "complete".into(),
        device: "/dev/nvme1n1".into(),
        volume: Some(Identity::of_size(1 << 30)),
        map_unit_bytes: 512 << 10,
        cold_bins: Bins::of(&histogram),
        warm_bins: Bins::of(&histogram),
        methods: vec![method("touch@4", vec![(0, 32)]), method("dd", vec![(600, 32)])],
        sweeps: vec![SweepReport {
            mode: "touch".into(),
            points: [1, 2, 4].map(point).to_vec(),
            knee: Some(4),
            knee_certain: true,
        }],
        recommended: Some(Recommended { mode: "touch".into(), depth: 4, ..Recommended::default() }),
        evidence: Evidence { units: 1000, cold: true, map: vec![(64, 8)], ..Evidence::default() },
        ..BenchReport::default()
    }
}

#[test]
fn a_page_does_not_grow_with_the_volume() {
    let page = warm_page(&warm_500_gib());
    // 2,048 cells of each of five stages, 15 bytes for a run of them, and all else.
    assert!((50_000..200_000).contains(&page.len()), "{} bytes", page.len());
    let json = crate::report::json(&warm_500_gib()).unwrap();
    assert!(json.len() < 64_000, "{} bytes", json.len());
}

#[test]
fn what_came_from_outside_stays_text() {
    let mut warm = warm_500_gib();
    warm.device = HOSTILE.into();
    (warm.profile, warm.engine, warm.mode, warm.end) =
        (HOSTILE.into(), HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
    (warm.error, warm.notes) = (Some(HOSTILE.into()), vec![HOSTILE.into()]);
    warm.stages[0].name = HOSTILE.into();
    warm.totals.errors = 1;
    warm.unreadable = vec![Unreadable { start_sector: 1, sectors: 1, error: HOSTILE.into() }];
    let mut bench = bench();
    (bench.device, bench.storage.kind, bench.drawn_from) = (HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
    bench.methods[1].name = HOSTILE.into();
    bench.methods[1].command = Some(HOSTILE.into());
    bench.methods[1].error = Some(HOSTILE.into());
    bench.evidence.spoilt = vec![HOSTILE.into()];
    bench.sweeps[0].mode = HOSTILE.into();
    for page in [warm_page(&warm), bench_page(&bench)] {
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains('\u{202e}'));
        assert!(page.matches("&lt;script&gt;alert(1)").count() >= 5);
    }
}

#[test]
fn every_part_of_a_bench_is_drawn() {
    let page = bench_page(&bench());
    for part in
        ["recommended", "methods", "latencies", "depths", "rate", "places", "prices", "layer2", "knee 4"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.contains("$540") && page.contains("$1.84"), "512 GiB at $0.0036 a GiB");
}

#[test]
fn a_knee_that_is_not_certain_is_not_called_the_smallest_depth() {
    let mut bench = bench();
    let told = |bench: &BenchReport| [bench_page(bench), bench_markdown(bench), bench.text()];
    let smallest = "the smallest depth as good as the best";
    let [page, markdown, text] = told(&bench);
    assert!(page.contains(smallest) && markdown.contains("**knee**") && text.contains("(knee)"));
    bench.sweeps[0].knee_certain = false;
    let [page, markdown, text] = told(&bench);
    assert!(page.contains("not far enough to be certain") && !page.contains(smallest));
    assert!(markdown.contains("| knee so far |") && text.contains("(knee so far)"), "{markdown}{text}");
}

#[test]
fn reads_that_failed_are_told_in_every_form() {
    let mut bench = bench();
    (bench.methods[1].errors, bench.methods[1].stalled) = (3, 2);
    for told in [bench_page(&bench), bench_markdown(&bench), bench.text()] {
        assert!(told.contains("dd: 3 reads failed, 2 of them stalled"), "{told}");
    }
}

#[test]
fn of_first_reads_no_more_is_told_than_is_known() {
    let mut bench = bench();
    (bench.evidence.ratio, bench.evidence.cold_units) = (50.0, 400);
    bench.cold_p99_us = (90_000, 120_000);
    let told = |bench: &BenchReport| [bench_page(bench), bench_markdown(bench), bench.text()];
    let [page, markdown, text] = told(&bench);
    assert!(
        page.contains("the 400 cold ones of them") && text.contains("; 400 cold first reads took "),
        "{text}"
    );
    assert!(page.contains("percentile lies between") && markdown.contains("percentile lies between"));
    assert!(text.contains("(90.0 ms to 120 ms)"), "{text}");
    assert!(page.contains("First reads one at a time, repeated ones with up to three others in flight"));
    // Of few reads the upper end is not known; where none was timed, neither is the lower.
    bench.cold_p99_us = (90_000, 0);
    let [page, markdown, text] = told(&bench);
    assert!(page.contains("percentile is 90") && markdown.contains("at the least"), "{markdown}");
    assert!(text.contains("p99 0.00 us (at least 90.0 ms); "), "{text}");
    bench.cold_p99_us = (0, 0);
    let line = bench.text().lines().next().unwrap().to_string();
    assert!(!line.contains('(') && line.contains("p99 "), "{line}");
}

#[test]
fn nothing_is_drawn_of_what_was_not_measured() {
    let refused = BenchReport { end: "not cold".into(), device: "d".into(), ..BenchReport::default() };
    let nothing = WarmReport { end: "refused".into(), device: "d".into(), ..WarmReport::default() };
    for page in [bench_page(&refused), warm_page(&nothing)] {
        assert!(!page.contains("<svg") && page.contains("status bad"), "{page}");
    }
}
