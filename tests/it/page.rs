//! The pages of `bench` and `warm`, by the real program from real runs on the emulator, opened in a headless Chromium: what
//! is drawn, measured in the browser, against what the emulator knows and what the report says.

#![cfg(feature = "lab")]

use crate::support::{output, require, require_root, shown};
use crate::warm::effect::watched;
use crate::warm::{UNIT, Volume, run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs in a page of its own, around the page that is tested, which is left as it is.
const MEASURE: &str = include_str!("page/measure.js");

/// What a browser makes of a page, on a screen so wide.
fn look(page: &Path, width: u32, dark: bool) -> Value {
    let html = fs::read_to_string(page).unwrap();
    let escaped = html.replace('&', "&amp;").replace('"', "&quot;");
    let around = page.with_extension("around.html");
    let frame = format!(
        "<!doctype html><meta charset=utf-8><body style=\"margin:0\"><pre id=measured></pre>\n\
         <iframe id=page style=\"border:0;width:{width}px;height:4000px\" srcdoc=\"{escaped}\"></iframe>\n\
         <script>\n{MEASURE}\n</script>"
    );
    fs::write(&around, frame).unwrap();
    let mut command = Command::new("chromium");
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    // A window is never narrower than some 500 pixels: the frame is.
    command.args(["--window-size=1300,4000", "--virtual-time-budget=20000", "--dump-dom"]);
    command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
    command.arg(format!("--user-data-dir={}", page.with_extension("browser").display()));
    let out = output(command.arg(format!("file://{}", around.display())));
    let dom = String::from_utf8_lossy(&out.stdout).into_owned();
    let told = dom.split("<pre id=\"measured\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let told = told
        .filter(|told| !told.is_empty())
        .unwrap_or_else(|| panic!("nothing was measured: {}", shown(&out)));
    let told = told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let measured: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert_eq!(measured["dark"].as_bool(), Some(dark), "the browser shows what was asked for");
    assert_eq!(measured["width"].as_f64(), Some(f64::from(width)));
    measured
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// What holds of every page: it loads and runs nothing, fits its screen, and can be read.
fn is_sound(measured: &Value) {
    assert_eq!(
        (&measured["scripts"], &measured["images"], &measured["loaded"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert!(
        measured["scroll_width"].as_f64() <= measured["width"].as_f64(),
        "it scrolls sideways: {measured:#}"
    );
    for fault in ["outside", "faint", "small", "on_each_other", "without_words", "without_size"] {
        assert!(list(&measured[fault]).is_empty(), "{fault}: {:#}", measured[fault]);
    }
    assert!(measured["texts"].as_u64().unwrap() > 40, "texts were looked at: {measured:#}");
}

/// On a telephone and on a desk, by day and by night.
fn is_sound_everywhere(page: &Path) -> Value {
    for (width, dark) in [(375, false), (375, true), (1200, true)] {
        is_sound(&look(page, width, dark));
    }
    let measured = look(page, 1200, false);
    is_sound(&measured);
    measured
}

/// The cells that a layer of the map covers.
fn cells(measured: &Value, layer: &str) -> BTreeSet<u64> {
    let found = measured["map"].get(layer).unwrap_or_else(|| panic!("no {layer} in {:#}", measured["map"]));
    list(found).iter().map(|cell| cell.as_u64().unwrap()).collect()
}

#[test]
fn the_map_of_a_warming_shows_what_the_emulator_hydrated() {
    if !require_root() || !require("chromium") {
        return;
    }
    let volume = Volume::new(600, "io2", &["first_read=30ms", "eio_units=41"]);
    let boot: Vec<u64> = (0..60).map(|number| 5 + 9 * number).collect();
    let later: Vec<u64> = (0..40).map(|number| 8 + 3 * number).collect();
    let ranges = |units: &[u64]| units.iter().map(|unit| (unit * UNIT, 4096)).collect::<Vec<_>>();
    let profile = volume.profile(&[("ready", &ranges(&boot)), ("later", &ranges(&later))]);
    let page = volume.path("warm.html");
    run(volume.verb("warm", &format!("--profile {profile} --mode touch --report {page}"))).exits(3, &[]);
    let measured = is_sound_everywhere(Path::new(&page));
    let drawn: Vec<BTreeSet<u64>> = (0..2).map(|at| cells(&measured, &format!("layer{at}"))).collect();
    assert_eq!(drawn[0], boot.iter().copied().collect());
    let only_later: BTreeSet<u64> = later.iter().copied().filter(|unit| !boot.contains(unit)).collect();
    assert_eq!(drawn[1], only_later);
    assert_eq!(cells(&measured, "none"), (0..600).collect(), "the map has a cell for each unit");
    assert_eq!((list(&measured["crosses"]), measured["steps"].as_u64()), (&vec![Value::from(41)], Some(2)));
    // The judge: what is drawn as read, less what is crossed out, is what the volume hydrated.
    let all: BTreeSet<u64> = drawn.iter().flatten().copied().filter(|unit| *unit != 41).collect();
    assert_eq!(all, volume.hydrated().into_iter().filter(|unit| *unit != 41).collect());
    let text = measured["text"].as_str().unwrap();
    let planned = boot.len() + only_later.len();
    for said in [
        &*format!("{planned} of {planned}"),
        "Input/output error",
        "sampled units are warm throughout",
        "$540 a month",
        "vendor documentation",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(measured["charts"].get("latency").is_some() && measured["charts"].get("timeline").is_some());
    // The same as Markdown, and as JSON with what the map is drawn from.
    volume.reset();
    let markdown = volume.path("warm.md");
    run(volume.verb("warm", &format!("--profile {profile} --mode touch --report {markdown}"))).exits(3, &[]);
    let markdown = fs::read_to_string(markdown).unwrap();
    assert!(markdown.starts_with("# warm of ") && markdown.contains("| A | ready | 60 |"), "{markdown}");
    volume.reset();
    run(volume.warm(&format!("--profile {profile} --mode touch"))).exits(3, &[]);
    let report = volume.report();
    assert_eq!((report["map"]["units"].as_u64(), &report["map"]["unreadable"]), (Some(600), &"41:1".into()));
    let told = report["map"]["planned"][0].as_str().unwrap();
    assert_eq!(told, boot.iter().map(|unit| format!("{unit}:1")).collect::<Vec<_>>().join(" "));
    assert_eq!(list(&report["series"]).last().unwrap()[1].as_u64(), Some((planned as u64 - 1) * UNIT));
}

#[test]
fn a_bench_is_drawn_with_its_knee_its_methods_and_its_distributions() {
    if !require_root() || !require("chromium") {
        return;
    }
    let volume = Volume::new(97 * 32, "io2", &["first_read=20ms", "fetches=16", "sigma=0.1"]);
    let page = volume.path("bench.html");
    let mut bench =
        volume.verb("bench", "--methods touch,documented-fio --no-save --first-touches 200 --json");
    bench.args(["--report", &page]);
    bench.args(["--method-command", "nothing=test -b {device} # <img src=x onerror=alert(1)>"]);
    let report: Value = serde_json::from_str(&run(bench).ok()).unwrap();
    let measured = is_sound_everywhere(Path::new(&page));
    // The depths: a point for each, the rates in the order of their heights, and the ring around the knee.
    let points = list(&report["sweeps"][0]["points"]);
    let dots = list(&measured["dots"]);
    assert_eq!(dots.len(), points.len());
    let rate = |at: usize| points[at]["hydrated_bytes_per_s"].as_f64().unwrap();
    let place = |at: usize, field: &str| dots[at][field].as_f64().unwrap();
    for at in 1..points.len() {
        assert!(place(at, "x") > place(at - 1, "x"), "{dots:?}");
        let higher = place(at, "y") < place(at - 1, "y");
        assert!(
            (rate(at) / rate(at - 1) - 1.0).abs() < 0.02 || higher == (rate(at) > rate(at - 1)),
            "{points:?}"
        );
    }
    let knee = points.iter().position(|point| point["depth"] == report["sweeps"][0]["knee"]).unwrap();
    let ring = &measured["rings"][0];
    assert_eq!(
        (ring["x"].as_f64(), ring["y"].as_f64()),
        (dots[knee]["x"].as_f64(), dots[knee]["y"].as_f64())
    );
    // The bars: in order, as long as the rates are.
    let bars = list(&measured["bars"]);
    assert_eq!(bars.len(), 3, "the sweep counts once: {bars:?}");
    let shares: Vec<f64> = bars.iter().map(|bar| bar["share"].as_f64().unwrap()).collect();
    assert!(shares.windows(2).all(|two| two[0] >= two[1]) && (shares[0] - 1.0).abs() < 0.01, "{shares:?}");
    let method = |name: &str| -> f64 {
        let found = list(&report["methods"]).iter().find(|method| method["name"] == name).unwrap();
        found["steady_bytes_per_s"].as_f64().or(found["hydrated_bytes_per_s"].as_f64()).unwrap()
    };
    let names: Vec<&str> = bars.iter().map(|bar| bar["name"].as_str().unwrap()).collect();
    let expected = method(names[1]) / method(names[0]);
    assert!((shares[1] - expected).abs() < 0.01, "{shares:?} {expected}");
    assert_eq!(measured["badges"].as_u64(), Some(1));
    // Warm is drawn left of cold.
    let marks: Vec<f64> =
        list(&measured["latency_marks"]).iter().map(|mark| mark.as_f64().unwrap()).collect();
    assert!(marks.len() == 4 && marks[0] < marks[2] && marks[2] <= marks[3], "{marks:?}");
    // Each way had a part of its own: tiles that nobody else has.
    let layers: Vec<BTreeSet<u64>> = (0..4).map(|at| cells(&measured, &format!("layer{at}"))).collect();
    assert!(layers.iter().all(|layer| !layer.is_empty()), "{:#}", measured["map"]);
    for (at, one) in layers.iter().enumerate() {
        assert!(layers[..at].iter().all(|other| other.is_disjoint(one)), "{:#}", measured["map"]);
    }
    let text = measured["text"].as_str().unwrap();
    for said in ["knee at", "<img src=x onerror=alert(1)>", "95 % confidence", "Fast Snapshot Restore"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn a_form_that_a_report_has_not_is_refused_before_anything_is_read() {
    if !require_root() {
        return;
    }
    let volume = Volume::new(64, "io2", &[]);
    let page = volume.path("probe.html");
    run(volume.verb("probe", &format!("--report {page}")))
        .exits(2, &["this report is JSON", "name it .json"]);
    assert!(volume.hydrated().is_empty() && !Path::new(&page).exists());
}

#[test]
fn the_page_of_an_effect_shows_who_was_first() {
    if !require_root() || !require("chromium") {
        return;
    }
    let volume = watched();
    let page = volume.path("effect.html");
    let line = format!("--json --journal {} --report {page}", volume.path(""));
    let told: Value = serde_json::from_str(&run(volume.verb("effect", &line)).ok()).unwrap();
    let measured = is_sound_everywhere(Path::new(&page));
    let html = fs::read_to_string(&page).unwrap();
    let sections = ["Who was first", "Ahead of the boot", "What the profile lacks"];
    sections.iter().for_each(|section| assert!(html.contains(section), "{section}"));
    let before = told["totals"]["before"].as_u64().unwrap();
    let share = 100.0 * before as f64 / 23.0;
    assert!(html.contains(&format!("{share:.1} % of what the boot asked for was warm by then")), "{told:#}");
    assert!(measured["texts"].as_u64().unwrap() < 400, "{measured:#}");
}
