//! The shape of the code, held by a test: who may name whom, how long things may get, where `unsafe` may stand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// The files that talk to the kernel.
const UNSAFE: &[&str] = &[
    "device/fiemap.rs",
    "device/files.rs",
    "device/fsmap.rs",
    "device/ioctl.rs",
    "engine/memory.rs",
    "engine/pread.rs",
    "engine/uring.rs",
    "lab/attach.rs",
    "lab/client.rs",
    "lab/clock.rs",
    "lab/daemon.rs",
    "lab/files.rs",
    "lab/image.rs",
    "lab/loop_device.rs",
    "process.rs",
    "record/wait.rs",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Paths below `src`, each with its text.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, found),
                false => found.extend((path.extension().is_some_and(|e| e == "rs")).then_some(path)),
            }
        }
    }
    let mut paths = Vec::new();
    let src = root().join("src");
    walk(&src, &mut paths);
    paths.sort();
    let name = |path: &Path| path.strip_prefix(&src).unwrap().display().to_string();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.ends_with("fixtures.rs")
}

/// What stands before the tests of a file.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// Whether a line counts: neither blank nor a comment.
fn counts(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//")
}

fn room_of(name: &str) -> &str {
    name.split('/').next().unwrap().trim_end_matches(".rs")
}

/// room -> the rooms it may name
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let block = text.split("```rooms\n").nth(1).expect("ARCHITECTURE.md has a table of rooms");
    let lines = block.split("```").next().unwrap().lines();
    lines
        .map(|line| {
            let (left, may) = line.split_once(" : ").unwrap_or_else(|| panic!("no colon in `{line}`"));
            let may = may.split_whitespace().filter(|room| *room != "-").map(Into::into);
            (left.split_whitespace().next().unwrap().to_string(), may.collect())
        })
        .collect()
}

/// The rooms that a text names: `crate::room` and `crate::{a, b}`.
fn named(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for part in text.split("crate::").skip(1) {
        let list = match part.strip_prefix('{') {
            Some(rest) => rest.split('}').next().unwrap(),
            None => part.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap(),
        };
        for name in list.split(',') {
            rooms.insert(name.trim().split("::").next().unwrap().to_string());
        }
    }
    rooms
}

#[test]
fn rooms_name_only_what_they_may() {
    let table = table();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, text) in sources().iter().filter(|(name, _)| name != "lib.rs" && name != "main.rs") {
        let room = room_of(name);
        seen.insert(room.to_string());
        let may = table.get(room).unwrap_or_else(|| panic!("room `{room}` is not in the table"));
        if may.contains("*") || is_test(name) {
            continue;
        }
        for other in named(code(text)) {
            if table.contains_key(&other) && other != room && !may.contains(&other) {
                wrong.push(format!("{name} names `{other}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the table in ARCHITECTURE.md:\n{}", wrong.join("\n"));
    let listed: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(seen, listed, "the table lists just the rooms there are");
}

#[test]
fn files_and_functions_stay_short() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let lines = code(&text).lines().filter(|line| counts(line)).count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{name}: {lines} lines of code"));
        }
        long.extend(
            long_functions(&text).into_iter().map(|(function, n)| format!("{name}: {function}: {n} lines")),
        );
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// rustfmt puts a function's end at the indentation of its start.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        let is_function =
            ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "unsafe fn ", "extern \"C\" fn "]
                .iter()
                .any(|head| start.starts_with(head));
        if !is_function || line.ends_with(';') || line.ends_with('}') {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - start.len()]);
        let body = lines[at..].iter().take_while(|line| **line != end);
        let count = body.filter(|line| counts(line)).count() + 1;
        if count > FUNCTION_LINES_MAX {
            long.push((start.split('(').next().unwrap().to_string(), count));
        }
    }
    long
}

#[test]
fn unsafe_stands_where_it_may_and_says_why() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let word = line.split("//").next().unwrap();
            let is_unsafe =
                word.contains("unsafe {") || word.contains("unsafe impl") || word.contains("unsafe fn");
            if !is_unsafe {
                continue;
            }
            if !UNSAFE.contains(&name.as_str()) {
                wrong.push(format!("{name}:{}: `unsafe` outside the files that talk to the kernel", at + 1));
            }
            let reason = lines[at.saturating_sub(8)..at].iter().any(|line| line.contains("SAFETY:"));
            if !reason {
                wrong.push(format!("{name}:{}: no reason", at + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_say_what_they_are_and_nothing_is_left_undone() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if !text.starts_with("//! ") && !is_test(&name) {
            wrong.push(format!("{name} does not open with what it is"));
        }
        for mark in [
            concat!("to", "do!("),
            concat!("unimple", "mented!("),
            concat!("FIX", "ME"),
            concat!("db", "g!("),
        ] {
            if text.contains(mark) {
                wrong.push(format!("{name} holds `{mark}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
