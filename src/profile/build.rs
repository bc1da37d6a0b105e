//! From recordings to a profile: merged, staged, in warming order.
//!
//! Holds: the result depends on the set of recordings, not on their order or on how often one is named.
//!
//! The default order is first use weighted by stall. Within a stage an extent's key is
//! `t / (1 + min(stall / mean stall, 3))`, `t` being its first use since the stage's first: what stalled as long
//! as the mean counts as used at half the time, what stalled three times as long or more at a quarter. Replaying
//! the exact order of history loses to an order by access count and time when the fetch rate is scarce (facts.md,
//! FAST'26): a read that hit a unit which its neighbour had just hydrated stalls nobody, and warming it in its
//! historic place delays one that does. The bound of 3 keeps one outlier of a cold volume's long tail from going
//! first, and time counts from the stage's start, or else what is used late would be ordered by stall alone.
//!
//! Pieces of one cluster of 128 KiB go together, at the place of the first of them. No published rate needs a smaller
//! unit of hydration (facts.md), and with that unit or a larger one the first read brings all of them: nothing is
//! warm later than it would have been, and a profile has a fraction of the extents.

use super::touches::{Run, Touches};
use super::{CLUSTER_SECTORS, EXTENTS_MAX, Entry, NAME_BYTES_MAX, Profile, RECORDINGS_MAX, Stage};
use crate::error::{Error, Kind, Result};
use crate::extent::Extent;
use crate::recording::{Recording, format};
use crate::volume::{Difference, Identity, Region};
use std::collections::BTreeMap;

/// Stalls beyond so many times the mean count no more.
const STALL_WEIGHT_MAX: u64 = 3;

/// Stages whose order is known whatever the clocks of the recordings said.
const STAGES_KNOWN: [&str; 4] = ["initrd", "sysinit", "ready", "later"];

/// What is warmed first within a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// First use weighted by stall.
    #[default]
    Stall,
    /// First use.
    History,
    /// Address on the disk.
    Address,
}

/// How a profile is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is warmed first within a stage.
    pub order: Order,
}

/// Builds a profile. Recordings of different volumes are refused with [`Kind::OtherVolume`].
pub fn build(name: &str, recordings: &[Recording], options: Options) -> Result<Profile> {
    let of = |recording| format::validate(recording).and_then(|()| Touches::of(recording));
    let mut merged: Vec<Touches> = recordings.iter().map(of).collect::<Result<_>>()?;
    // In pairs, so that many recordings cost n log n.
    while merged.len() > 1 {
        merged = merged
            .chunks(2)
            .map(|pair| pair.get(1).map_or_else(|| Ok(pair[0].clone()), |other| pair[0].merge(other)))
            .collect::<Result<_>>()?;
    }
    let merged = merged.pop().ok_or_else(|| {
        Error::usage(format!("failed to build profile `{name}`: there is no recording to build it from"))
    })?;
    from_touches(name, &merged, options)
}

/// Builds a profile from what recordings say together.
pub fn from_touches(name: &str, touches: &Touches, options: Options) -> Result<Profile> {
    let refuse = |what: &str| Error::failed(format!("failed to build profile `{name}`: {what}"));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Error::usage(format!("failed to name the profile `{}`", name.escape_debug()))
            .hint(format!("a name has 1 to {NAME_BYTES_MAX} bytes and no control characters")));
    }
    if touches.regions.is_empty() {
        return Err(refuse("the recordings hold no read, and no write that would wait for one")
            .hint("what is in the page cache is not read again: record a boot, or drop the caches first"));
    }
    if touches.sources.len() > RECORDINGS_MAX {
        return Err(refuse(&format!("it would name more than {RECORDINGS_MAX} recordings")));
    }
    check_volumes(name, touches)?;
    let regions = regions(touches);
    // By stage: its name, its bit, its runs, each with its region.
    type Collected = (String, u64, Vec<(u16, Run)>);
    let mut stages: Vec<Collected> =
        stage_order(&touches.stages).map(|(name, bit)| (name.clone(), 1 << bit, Vec::new())).collect();
    for (key, runs) in &touches.regions {
        // The checks above leave no region that is not there.
        let region = regions.iter().position(|region| region.partuuid == *key).unwrap_or(0) as u16;
        for run in runs {
            let earliest = stages.iter_mut().find(|(_, bit, _)| run.used.stages & bit != 0);
            earliest.expect("a run has a stage").2.push((region, *run));
        }
    }
    let profile = Profile {
        name: name.into(),
        volume: touches.volumes.last().cloned().flatten(),
        recordings: touches.sources.keys().cloned().collect(),
        events: touches.sources.values().fold(0, |sum, source| sum.saturating_add(source.events)),
        lost: touches.sources.values().fold(0, |sum, source| sum.saturating_add(source.lost)),
        stages: stages
            .into_iter()
            .map(|(name, _, runs)| Stage { name, entries: entries(runs, options.order, &regions) })
            .filter(|stage| !stage.entries.is_empty())
            .collect(),
        regions,
    };
    if profile.extents() > EXTENTS_MAX {
        return Err(refuse(&format!("it has {} extents, the limit is {EXTENTS_MAX}", profile.extents())));
    }
    profile.validate()?;
    Ok(profile)
}

/// Each volume must carry what the others were read on, as far as it is known: a recorder looks up the filesystems of those
/// partitions alone that were touched.
fn check_volumes(name: &str, touches: &Touches) -> Result<()> {
    let volumes: Vec<&Identity> = touches.volumes.iter().flatten().collect();
    if !volumes.is_empty() && volumes.len() < touches.volumes.len() {
        return Err(Error::new(
            Kind::OtherVolume,
            format!("failed to build profile `{name}`: some recordings name a volume, some do not"),
        )
        .hint("import lists with --device, so that they are bound to the volume"));
    }
    let mut differences = Vec::new();
    for have in &volumes {
        for want in &volumes {
            let used: Vec<Region> =
                want.regions().into_iter().filter(|r| touches.regions.contains_key(&r.partuuid)).collect();
            let unlike = used.iter().filter_map(|region| have.locate(region).err());
            differences.extend(unlike.filter(|difference| !is_not_known(difference)));
            differences.extend(want.other_table(&used, have));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    let mut named: Vec<String> = differences.iter().map(ToString::to_string).collect();
    named.sort();
    named.dedup();
    Err(Error::new(
        Kind::OtherVolume,
        format!(
            "failed to build profile `{name}`: the recordings are of different volumes: {}",
            named.join("; ")
        ),
    )
    .hint("build one profile for each image"))
}

/// Whether a partition is the one that was meant, with a filesystem that nobody has looked up.
fn is_not_known(difference: &Difference) -> bool {
    matches!(difference, Difference::OtherFilesystem { partuuid: Some(_), have: None, .. })
}

/// The regions of the largest volume; each as large as the largest of its kind, with the filesystem that any has seen there.
fn regions(touches: &Touches) -> Vec<Region> {
    let Some(largest) = touches.volumes.last().and_then(Option::as_ref) else {
        let ends = touches.regions.values().flatten().map(|run| run.extent.end());
        return vec![Region { partuuid: None, fs_uuid: None, start: 0, sectors: ends.max().unwrap_or(0) }];
    };
    let mut regions = largest.regions();
    let volumes = || touches.volumes.iter().rev().flatten();
    for region in &mut regions {
        let fs_uuid = |volume: &Identity| {
            let same = volume.regions().into_iter().find(|other| other.partuuid == region.partuuid);
            same.and_then(|same| same.fs_uuid)
        };
        region.fs_uuid = region.fs_uuid.take().or_else(|| volumes().find_map(fs_uuid));
        let place = Region { fs_uuid: None, ..region.clone() };
        let found = volumes().filter_map(|volume| volume.locate(&place).ok());
        region.sectors = found.map(Extent::sectors).fold(region.sectors, u64::max);
    }
    regions
}

/// Names of stages in order of urgency, each with its bit. Known names keep their order; a name of the user's
/// goes after the last known one that started no later.
fn stage_order(stages: &BTreeMap<String, u64>) -> impl Iterator<Item = (&String, usize)> {
    let rank = |name: &String| STAGES_KNOWN.iter().position(|known| known == name);
    let mut order: Vec<(usize, u64, &String, usize)> = Vec::with_capacity(stages.len());
    for (bit, (name, from_us)) in stages.iter().enumerate() {
        let place = rank(name).map(|rank| 2 * rank + 1);
        let place = place.unwrap_or_else(|| {
            let before =
                stages.iter().filter(|(_, start)| *start <= from_us).filter_map(|(name, _)| rank(name));
            before.max().map_or(0, |rank| 2 * rank + 2)
        });
        order.push((place, *from_us, name, bit));
    }
    order.sort();
    order.into_iter().map(|(_, _, name, bit)| (name, bit))
}

/// Part of a run, on its way to an entry.
#[derive(Clone, Copy)]
struct Piece {
    /// First sector on the disk.
    address: u64,
    region: u16,
    run: Run,
    key: u128,
}

/// One stage's runs in warming order; neighbours in order that are neighbours on the disk become one.
fn entries(runs: Vec<(u16, Run)>, order: Order, regions: &[Region]) -> Vec<Entry> {
    let key = keys(&runs, order);
    let mut pieces = Vec::with_capacity(runs.len());
    for (region, run) in runs {
        let base = regions[usize::from(region)].start;
        for extent in at_clusters(run.extent, base) {
            let (address, run) = (base + extent.start(), Run { extent, used: run.used });
            pieces.push(Piece { address, region, run, key: key(&run) });
        }
    }
    pieces.sort_by_key(|piece| (piece.address, piece.region));
    for cluster in pieces.chunk_by_mut(|a, b| a.address / CLUSTER_SECTORS == b.address / CLUSTER_SECTORS) {
        let first = cluster.iter().map(|piece| piece.key).min().unwrap_or(0);
        cluster.iter_mut().for_each(|piece| piece.key = first);
    }
    // Stable: equal keys stay in order of address.
    pieces.sort_by_key(|piece| piece.key);
    let mut entries: Vec<Entry> = Vec::new();
    for Piece { region, run, .. } in pieces {
        let first_use_ms = u32::try_from(run.used.first_use_us / 1000).unwrap_or(u32::MAX);
        let stall_ms = run.used.stall_us.saturating_add(500) / 1000;
        match entries.last_mut() {
            Some(last) if last.region == region && last.extent.end() == run.extent.start() => {
                let extent = Extent::new(last.extent.start(), run.extent.end());
                last.extent = extent.expect("two extents in order");
                last.first_use_ms = last.first_use_ms.min(first_use_ms);
                last.stall_ms = last.stall_ms.max(stall_ms);
            }
            _ => entries.push(Entry { region, extent: run.extent, first_use_ms, stall_ms }),
        }
    }
    entries
}

/// What runs are ordered by, the least first.
fn keys(runs: &[(u16, Run)], order: Order) -> impl Fn(&Run) -> u128 + use<> {
    let begin_us = runs.iter().map(|(_, run)| run.used.first_use_us).min().unwrap_or(0);
    let stalls = runs.iter().map(|(_, run)| u64::from(run.used.stall_us)).filter(|stall| *stall > 0);
    let (sum, count) = stalls.fold((0u64, 0u64), |(sum, count), stall| (sum + stall, count + 1));
    let mean_us = sum.checked_div(count).unwrap_or(0).max(1);
    move |run| match order {
        Order::Address => 0,
        Order::History => u128::from(run.used.first_use_us),
        Order::Stall => {
            let weight_us = u64::from(run.used.stall_us).min(STALL_WEIGHT_MAX * mean_us);
            // In thousandths of a microsecond, so that the division keeps an order among early reads.
            u128::from(run.used.first_use_us - begin_us) * 1000 * u128::from(mean_us)
                / u128::from(mean_us + weight_us)
        }
    }
}

/// A run cut where its first cluster ends and where its last begins; what is between, it has for itself.
fn at_clusters(extent: Extent, base: u64) -> impl Iterator<Item = Extent> {
    let up = (base + extent.start()).next_multiple_of(CLUSTER_SECTORS) - base;
    let down = (base + extent.end()) / CLUSTER_SECTORS * CLUSTER_SECTORS;
    let down = down.saturating_sub(base).max(up).min(extent.end());
    let up = up.min(extent.end());
    let cuts = [extent.start(), up, down, extent.end()];
    (0..3).filter_map(move |part| Extent::new(cuts[part], cuts[part + 1]))
}

#[cfg(test)]
mod tests;
