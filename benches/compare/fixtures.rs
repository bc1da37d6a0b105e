//! Profiles of places, made as people make them: a list, imported, built, compiled.

use super::bed::Place;
use super::run;
use ebs_prewarm::error::{Context, Result};
use std::fmt::Write;

/// A read of a list.
pub const BLOCK_BYTES: u64 = 4096;

/// A compiled profile of a block of 4 KiB at each offset, in that order; gives its path.
pub fn compiled(place: &Place, name: &str, offsets: &[u64]) -> Result<String> {
    let mut list = String::new();
    for offset in offsets {
        let _ = writeln!(list, "{offset} {BLOCK_BYTES}");
    }
    let file = |end: &str| place.text(&format!("{name}.{end}"));
    let (text, recording, profile, compiled) = (file("list"), file("rec"), file("yaml"), file("bin"));
    std::fs::write(&text, list).context(|| format!("failed to write `{text}`"))?;
    run::ours(&["profile", "import", "-o", &recording, "--format", "list", &text])?;
    run::ours(&["profile", "build", "-o", &profile, &recording])?;
    run::ours(&["profile", "compile", "-o", &compiled, &profile])?;
    Ok(compiled)
}

/// Numbers below `count` in an order that is the same each time and not that of addresses.
pub fn shuffled(count: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..count).collect();
    ebs_prewarm::bench::Draw(1).shuffle(&mut numbers);
    numbers
}

/// Contenders in the order of a round: each round begins with another.
pub fn turns<T>(contenders: &[T], round: usize) -> impl Iterator<Item = &T> {
    let first = round % contenders.len().max(1);
    contenders[first..].iter().chain(&contenders[..first])
}
