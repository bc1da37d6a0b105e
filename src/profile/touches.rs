//! What recordings say together: for each sector of each region, its first use, its longest stall, its stages.
//!
//! Holds: [`Touches::merge`] is commutative, associative and idempotent, since each part of the value is (the
//! earlier time, the longer stall, the union of stages, the union of sources), and since equal values have one
//! form: runs in order of address, never adjacent with the same value. So it does not matter in which order or
//! how often recordings are merged. Not here: which stage wins and what is warmed first, see the builder.

use super::{CLUSTER_SECTORS, STAGES_MAX};
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::recording::{Flags, Recording, Touch};
use crate::volume::Identity;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The stage of a recording that marks none: it saw a boot until it was ready.
pub const STAGE_DEFAULT: &str = "ready";

/// How sectors were used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// First use in any recording, microseconds since the kernel started.
    pub first_use_us: u64,
    /// Longest stall in any recording, microseconds; 0 where none is known.
    pub stall_us: u32,
    /// Bit n: used in the n-th of [`Touches::stages`], by name.
    pub stages: u64,
}

impl Use {
    fn join(self, other: Use) -> Use {
        Use {
            first_use_us: self.first_use_us.min(other.first_use_us),
            stall_us: self.stall_us.max(other.stall_us),
            stages: self.stages | other.stages,
        }
    }
}

/// Sectors with the same use, relative to their region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The sectors.
    pub extent: Extent,
    /// How they were used.
    pub used: Use,
}

/// What is known of one recording besides its touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Events in it.
    pub events: u64,
    /// Events lost in it.
    pub lost: u64,
}

/// Any number of recordings, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touches {
    /// The recordings by their ids.
    pub sources: BTreeMap<String, Source>,
    /// The volumes they were made on; `None` for an import without a device.
    pub volumes: BTreeSet<Option<Identity>>,
    /// The stages by name, each with its earliest start in microseconds since the kernel started.
    pub stages: BTreeMap<String, u64>,
    /// By PARTUUID, `None` for the whole disk: runs in order of address.
    pub regions: BTreeMap<Option<String>, Vec<Run>>,
}

impl Touches {
    /// The reads of one recording, and the writes that cover a cluster in part: those wait until the storage has fetched
    /// the rest of it (facts.md). What was written whole, or discarded first, is no reason to warm.
    pub fn of(recording: &Recording) -> Result<Touches> {
        let header = &recording.header;
        let source = Source { events: header.events, lost: header.lost() };
        let mut marks: Vec<(u64, &str)> =
            header.stages.iter().map(|m| (m.from_us, m.name.as_str())).collect();
        if marks.is_empty() {
            marks.push((0, STAGE_DEFAULT));
        }
        marks.sort_by_key(|(from_us, _)| *from_us);
        let mut stages = BTreeMap::new();
        for (from_us, name) in &marks {
            stages.entry((*name).to_owned()).or_insert(*from_us);
        }
        check_stages(&stages)?;
        let bit = |name: &str| stages.keys().position(|known| known == name).map_or(0, |n| 1u64 << n);
        let marks: Vec<(u64, u64)> = marks.iter().map(|(from_us, name)| (*from_us, bit(name))).collect();

        let layout = Layout::of(header.volume.as_ref());
        let mut regions: BTreeMap<Option<String>, Vec<Run>> = BTreeMap::new();
        let written = written(recording);
        for touch in recording.touches().filter(|touch| is_read(touch) || is_write(touch)) {
            // What came before the first mark belongs to the first stage.
            let mark = marks.partition_point(|(from_us, _)| *from_us <= touch.time_us).saturating_sub(1);
            let used = Use {
                first_use_us: touch.time_us,
                stall_us: touch.latency_us.unwrap_or(0),
                stages: marks[mark].1,
            };
            let mut add = |extent| {
                layout.split(extent, |key, extent| match regions.get_mut(key) {
                    Some(runs) => runs.push(Run { extent, used }),
                    None => drop(regions.insert(key.clone(), vec![Run { extent, used }])),
                });
            };
            match is_read(&touch) {
                true => add(touch.extent),
                false => in_part(touch.extent, &written).for_each(add),
            }
        }
        for runs in regions.values_mut() {
            runs.sort_by_key(|run| run.extent);
            *runs = canonical(std::mem::take(runs));
        }
        let sources = BTreeMap::from([(header.id.clone(), source)]);
        Ok(Touches { sources, volumes: BTreeSet::from([header.volume.clone()]), stages, regions })
    }

    /// Both together. Fails only where the stages of both are more than [`STAGES_MAX`].
    pub fn merge(&self, other: &Touches) -> Result<Touches> {
        let mut sources = self.sources.clone();
        for (id, source) in &other.sources {
            let known = sources.entry(id.clone()).or_default();
            known.events = known.events.max(source.events);
            known.lost = known.lost.max(source.lost);
        }
        let mut stages = self.stages.clone();
        for (name, from_us) in &other.stages {
            let earliest = stages.entry(name.clone()).or_insert(*from_us);
            *earliest = (*earliest).min(*from_us);
        }
        check_stages(&stages)?;
        let mut regions = self.renamed(&stages);
        for (key, runs) in other.renamed(&stages) {
            let joined = match regions.remove(&key) {
                Some(mine) => join(&mine, &runs),
                None => runs,
            };
            regions.insert(key, joined);
        }
        let volumes = self.volumes.union(&other.volumes).cloned().collect();
        Ok(Touches { sources, volumes, stages, regions })
    }

    /// The regions, with the bits of stages counted in `stages`, which holds all of `self.stages`.
    fn renamed(&self, stages: &BTreeMap<String, u64>) -> BTreeMap<Option<String>, Vec<Run>> {
        let mut regions = self.regions.clone();
        if self.stages.len() == stages.len() {
            return regions;
        }
        let positions: Vec<u32> = (0..)
            .zip(stages.keys())
            .filter(|(_, name)| self.stages.contains_key(*name))
            .map(|(position, _)| position)
            .collect();
        for run in regions.values_mut().flatten() {
            let old = run.used.stages;
            let bits = positions.iter().enumerate().filter(|(bit, _)| old >> bit & 1 == 1);
            run.used.stages = bits.fold(0, |set, (_, position)| set | 1 << position);
        }
        regions
    }
}

fn check_stages(stages: &BTreeMap<String, u64>) -> Result<()> {
    if stages.len() > STAGES_MAX {
        let count = stages.len();
        return Err(Error::failed(format!(
            "failed to merge recordings: they mark {count} stages, the limit is {STAGES_MAX}"
        )));
    }
    Ok(())
}

fn is_read(touch: &Touch) -> bool {
    touch.flags.has(Flags::READ) && !touch.flags.has(Flags::WRITE) && !touch.flags.has(Flags::DISCARD)
}

fn is_write(touch: &Touch) -> bool {
    touch.flags.has(Flags::WRITE) && !touch.flags.has(Flags::READ) && !touch.flags.has(Flags::DISCARD)
}

/// All that a recording wrote first.
fn written(recording: &Recording) -> ExtentSet {
    recording.touches().filter(is_write).map(|touch| touch.extent).collect()
}

/// The pieces of a write that lie in clusters which are not written throughout.
fn in_part(extent: Extent, written: &ExtentSet) -> impl Iterator<Item = Extent> {
    let cluster = |number: u64| Extent::at(number * CLUSTER_SECTORS, CLUSTER_SECTORS);
    let clusters = extent.units(CLUSTER_SECTORS).filter_map(cluster);
    clusters
        .filter(|cluster| !written.covers(*cluster))
        .filter_map(move |cluster| cluster.intersection(extent))
}

/// Runs in order of start, brought into the one form.
fn canonical(sorted: Vec<Run>) -> Vec<Run> {
    if sorted.windows(2).all(|pair| pair[0].extent.end() <= pair[1].extent.start()) {
        let mut out = Vec::with_capacity(sorted.len());
        sorted.into_iter().for_each(|run| push(&mut out, run));
        return out;
    }
    // Overlaps: no recorder writes them, an import may. Halves are sorted too.
    let half = sorted.len() / 2;
    let (left, right) = sorted.split_at(half);
    join(&canonical(left.to_vec()), &canonical(right.to_vec()))
}

/// Appends a run that starts at or after the last one's end.
fn push(out: &mut Vec<Run>, run: Run) {
    match out.last_mut() {
        Some(last) if last.used == run.used && last.extent.end() == run.extent.start() => {
            last.extent = Extent::new(last.extent.start(), run.extent.end()).expect("two extents in order");
        }
        _ => out.push(run),
    }
}

/// Two lists of runs, each in the one form, laid over each other.
fn join(a: &[Run], b: &[Run]) -> Vec<Run> {
    let mut out = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().copied(), b.iter().copied());
    let (mut x, mut y) = (a.next(), b.next());
    loop {
        let (end, used, start) = match (x, y) {
            (None, None) => return out,
            (Some(run), None) | (None, Some(run)) => (run.extent.end(), run.used, run.extent.start()),
            (Some(p), Some(q)) if p.extent.start() < q.extent.start() => {
                (p.extent.end().min(q.extent.start()), p.used, p.extent.start())
            }
            (Some(p), Some(q)) if q.extent.start() < p.extent.start() => {
                (q.extent.end().min(p.extent.start()), q.used, q.extent.start())
            }
            (Some(p), Some(q)) => (p.extent.end().min(q.extent.end()), p.used.join(q.used), p.extent.start()),
        };
        push(&mut out, Run { extent: Extent::new(start, end).expect("a run is not empty"), used });
        advance(&mut x, &mut a, end);
        advance(&mut y, &mut b, end);
    }
}

/// Leaves of a run what lies from a sector on; takes the next one where nothing is left.
fn advance(run: &mut Option<Run>, rest: &mut impl Iterator<Item = Run>, from: u64) {
    if let Some(Run { extent, used }) = *run {
        let left = Extent::new(extent.start().max(from), extent.end());
        *run = left.map(|extent| Run { extent, used }).or_else(|| rest.next());
    }
}

/// Which sectors of a disk belong to which region.
struct Layout {
    /// In order of address, disjoint: sectors of a partition, its first sector, its key.
    pieces: Vec<(Extent, u64, Option<String>)>,
}

impl Layout {
    fn of(volume: Option<&Identity>) -> Layout {
        let mut known = HashSet::new();
        let parts: Vec<(Extent, &String)> = volume
            .into_iter()
            .flat_map(|volume| &volume.partitions)
            .filter_map(|part| Some((Extent::at(part.start, part.sectors)?, part.partuuid.as_ref()?)))
            // A PARTUUID that is there twice names its first partition only.
            .filter(|(_, partuuid)| known.insert(*partuuid))
            .collect();
        let bounds: BTreeSet<u64> = parts.iter().flat_map(|(e, _)| [e.start(), e.end()]).collect();
        let bounds: Vec<u64> = bounds.into_iter().collect();
        let pieces = bounds.windows(2).filter_map(|pair| {
            let piece = Extent::new(pair[0], pair[1])?;
            let inside = parts.iter().filter(|(part, _)| part.contains(piece));
            // A logical partition lies inside the extended one: the inner one starts later.
            let (part, partuuid) =
                inside.max_by_key(|(part, _)| (part.start(), std::cmp::Reverse(part.end())))?;
            Some((piece, part.start(), Some((*partuuid).clone())))
        });
        Layout { pieces: pieces.collect() }
    }

    /// Calls `part` for each piece of an absolute extent, relative to its region.
    fn split(&self, extent: Extent, mut part: impl FnMut(&Option<String>, Extent)) {
        let mut at = extent.start();
        let first = self.pieces.partition_point(|(piece, ..)| piece.end() <= at);
        for (piece, start, key) in &self.pieces[first..] {
            if piece.start() >= extent.end() {
                break;
            }
            if let Some(gap) = Extent::new(at, piece.start()) {
                part(&None, gap);
            }
            let inside = piece.intersection(extent).expect("the piece ends after and starts before");
            part(key, Extent::at(inside.start() - start, inside.sectors()).expect("moved down"));
            at = inside.end();
        }
        if let Some(rest) = Extent::new(at, extent.end()) {
            part(&None, rest);
        }
    }
}

#[cfg(test)]
mod tests;
