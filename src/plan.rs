//! The ordered reads for one volume: extents become reads of units, each unit once. Pure.
//!
//! Holds: reads lie within the volume and on its blocks; in touch mode a unit has one read however many extents
//! lie in it; in full mode no byte is read twice; the rest of the volume is never held in memory as a list.

use crate::extent::{Extent, ExtentSet};
use crate::units::{NS_PER_S, SECTOR_BYTES};
use std::collections::HashMap;

/// One I/O of EBS is at most this long (vendor documentation): a longer read gains nothing.
pub const READ_BYTES_MAX: u64 = 256 << 10;
/// Gaps up to this are read along in full mode: a read of its own costs more than 64 KiB of transfer.
const GAP_SECTORS_MAX: u64 = (64 << 10) / SECTOR_BYTES;
/// A touch reads one page: what the page cache would ask for at the least.
pub const TOUCH_BYTES: u64 = 4096;

/// How a unit is hydrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One small read per unit: the storage fetches the whole unit.
    Touch,
    /// Every byte of the profile's extents.
    Full,
}

impl Mode {
    /// As it stands in reports.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Touch => "touch",
            Mode::Full => "full",
        }
    }
}

/// The volume, and how to read it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Size of the volume in sectors.
    pub sectors: u64,
    /// Logical block in bytes.
    pub block_bytes: u32,
    /// Unit in bytes, a power of two of at least 4 KiB.
    pub unit_bytes: u64,
    /// How a unit is hydrated.
    pub mode: Mode,
}

impl Shape {
    fn units(&self) -> u64 {
        self.sectors.div_ceil(self.unit_sectors())
    }

    fn unit_sectors(&self) -> u64 {
        self.unit_bytes / SECTOR_BYTES
    }

    fn touch_sectors(&self) -> u64 {
        TOUCH_BYTES.max(u64::from(self.block_bytes)) / SECTOR_BYTES
    }

    fn touch_at(&self, sector: u64, stage: u16) -> PlannedRead {
        let touch = self.touch_sectors();
        let start = sector / touch * touch;
        // The last block of a volume may be shorter than a page.
        let sectors = touch.min(self.sectors - start) as u32;
        PlannedRead { start, sectors, stage }
    }

    fn within(&self, extent: Extent) -> Option<Extent> {
        extent.intersection(Extent::new(0, self.sectors)?)
    }

    fn whole_blocks(&self, extent: Extent) -> Extent {
        let aligned = extent.align_out(self.touch_sectors());
        self.within(aligned).unwrap_or(extent)
    }
}

/// One read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRead {
    /// First sector.
    pub start: u64,
    /// Length in sectors.
    pub sectors: u32,
    /// Index of its stage.
    pub stage: u16,
}

impl PlannedRead {
    /// Offset in bytes.
    pub fn offset(self) -> u64 {
        self.start * SECTOR_BYTES
    }

    /// Length in bytes.
    pub fn bytes(self) -> u32 {
        self.sectors * SECTOR_BYTES as u32
    }
}

/// What a stage amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StagePlan {
    /// Its name.
    pub name: String,
    /// Units that no earlier stage has.
    pub units: u64,
    /// Reads of it.
    pub reads: u64,
    /// Bytes they read.
    pub bytes: u64,
}

/// The ordered reads for one volume.
#[derive(Clone, Debug)]
pub struct Plan {
    shape: Shape,
    stages: Vec<StagePlan>,
    reads: Vec<PlannedRead>,
    /// One bit a unit: in a stage.
    planned: Vec<u64>,
    /// What stages read in full mode.
    taken: ExtentSet,
    /// Index of the stage that holds the rest.
    rest: Option<u16>,
    /// Where the rest is to be found; `None` for anywhere.
    within: Option<ExtentSet>,
}

/// Name of the stage that holds what no profile names.
pub const REST: &str = "rest";
/// The stages of a boot in their order, and the rest.
pub const STAGES_KNOWN: [&str; 5] = ["initrd", "sysinit", "ready", "later", REST];

/// The place of each stage of a profile in a boot, the earlier the more urgent. One of the user's own has the place of
/// `ready`; none has a place before that of one before it.
pub fn places<'a>(stages: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let place = |name: &str| STAGES_KNOWN.iter().position(|known| *known == name);
    let ready = place("ready").unwrap_or_default();
    let each = stages.into_iter().scan(0, |before, stage| {
        *before = place(stage).unwrap_or(ready).max(*before);
        Some(*before as u8)
    });
    each.collect()
}

impl Plan {
    /// From stages, the most urgent first, each with its extents in warming order. Extents past the end of the
    /// volume are left out: binding a profile has refused those already.
    pub fn new<'a>(stages: impl IntoIterator<Item = (&'a str, &'a [Extent])>, shape: Shape) -> Plan {
        let units = shape.sectors.div_ceil(shape.unit_bytes / SECTOR_BYTES);
        let mut plan = Plan {
            shape,
            stages: Vec::new(),
            reads: Vec::new(),
            planned: vec![0; units.div_ceil(64) as usize],
            taken: ExtentSet::new(),
            rest: None,
            within: None,
        };
        for (name, extents) in stages {
            let mut stage = StagePlan { name: name.into(), ..StagePlan::default() };
            let first = plan.reads.len();
            match shape.mode {
                Mode::Touch => plan.touch(extents, &mut stage),
                Mode::Full => plan.full(extents, &mut stage),
            }
            stage.reads = (plan.reads.len() - first) as u64;
            stage.bytes = plan.reads[first..].iter().map(|read| u64::from(read.bytes())).sum();
            plan.stages.push(stage);
        }
        plan
    }

    /// Adds all of the volume that no stage has, in order of address, as a last stage: the units, and in full mode
    /// also what stages leave of theirs.
    pub fn with_rest(mut self) -> Plan {
        self.add_rest(None);
        self
    }

    /// A plan of its own for the rest: what no stage of this plan has, of all units or of those that some of these
    /// extents lie in.
    pub fn rest_alone(&self, within: Option<ExtentSet>) -> Plan {
        let (planned, taken) = (self.planned.clone(), self.taken.clone());
        let (stages, reads) = (Vec::new(), Vec::new());
        let mut plan = Plan { shape: self.shape, stages, reads, planned, taken, rest: None, within: None };
        plan.add_rest(within);
        plan
    }

    fn add_rest(&mut self, within: Option<ExtentSet>) {
        self.rest = Some(self.stages.len() as u16);
        self.within = within;
        let mut stage = StagePlan { name: REST.into(), ..StagePlan::default() };
        for read in self.rest_reads() {
            stage.reads += 1;
            stage.bytes += u64::from(read.bytes());
        }
        let is_new = |unit: &u64| !self.is_planned(*unit) && self.is_wanted(*unit);
        stage.units = (0..self.shape.units()).filter(is_new).count() as u64;
        self.stages.push(stage);
    }

    fn is_planned(&self, unit: u64) -> bool {
        self.planned[(unit / 64) as usize] & (1 << (unit % 64)) != 0
    }

    /// Whether a unit may be of the rest.
    fn is_wanted(&self, unit: u64) -> bool {
        let place = || Extent::at(unit * self.shape.unit_sectors(), self.shape.unit_sectors());
        self.within.as_ref().is_none_or(|within| place().is_some_and(|place| within.overlaps(place)))
    }

    /// Sectors of a unit.
    pub fn unit_sectors(&self) -> u64 {
        self.shape.unit_sectors()
    }

    /// The stages in order, the rest last.
    pub fn stages(&self) -> &[StagePlan] {
        &self.stages
    }

    /// The volume it was made for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// All reads in order; how many are left is known throughout.
    pub fn reads(&self) -> impl Iterator<Item = PlannedRead> + '_ {
        let rest = self.rest.map(|_| self.rest_reads()).into_iter().flatten();
        Counted { reads: self.reads.iter().copied().chain(rest), left: self.totals().reads as usize }
    }

    /// The reads of stages.
    pub fn stage_reads(&self) -> &[PlannedRead] {
        &self.reads
    }

    /// Tells plans apart: another profile, unit, mode, rest or size of disk makes another key. So many units take a
    /// few milliseconds as 64 TiB have.
    pub fn key(&self) -> u64 {
        let (mut of_reads, mut of_rest) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
        for read in &self.reads {
            of_reads.update(&read.start.to_le_bytes());
            of_reads.update(&read.sectors.to_le_bytes());
        }
        // The rest is what the stages have not, in these places.
        let extents = [Some(&self.taken), self.within.as_ref()];
        for extent in extents.into_iter().flatten().flat_map(ExtentSet::iter) {
            of_rest.update(&extent.start().to_le_bytes());
            of_rest.update(&extent.end().to_le_bytes());
        }
        self.planned.iter().for_each(|word| of_rest.update(&word.to_le_bytes()));
        let (shape, totals) = (&self.shape, self.totals());
        let sizes = [shape.sectors, shape.unit_bytes, shape.block_bytes.into(), totals.reads, totals.bytes];
        sizes.iter().for_each(|size| of_rest.update(&size.to_le_bytes()));
        of_rest.update(shape.mode.name().as_bytes());
        u64::from(of_reads.finalize()) << 32 | u64::from(of_rest.finalize())
    }

    /// Units planned, reads and bytes in all.
    pub fn totals(&self) -> StagePlan {
        self.stages.iter().fold(StagePlan::default(), |mut sum, stage| {
            sum.units += stage.units;
            sum.reads += stage.reads;
            sum.bytes += stage.bytes;
            sum
        })
    }

    /// Length of the longest read in bytes.
    pub fn read_bytes_max(&self) -> u32 {
        let in_rest =
            if self.rest.is_some() && self.shape.mode == Mode::Full { READ_BYTES_MAX as u32 } else { 0 };
        let listed = self.reads.iter().map(|read| read.bytes()).max().unwrap_or(0);
        listed.max(in_rest).max(self.shape.touch_sectors() as u32 * SECTOR_BYTES as u32)
    }

    /// Marks a unit; whether it was new.
    fn mark(&mut self, unit: u64) -> bool {
        let word = &mut self.planned[(unit / 64) as usize];
        let new = *word & (1 << (unit % 64)) == 0;
        *word |= 1 << (unit % 64);
        new
    }

    /// The block that holds the first sector used, so that a read which crosses no unit is asked for.
    fn touch(&mut self, extents: &[Extent], stage: &mut StagePlan) {
        let shape = self.shape;
        let unit_sectors = shape.unit_sectors();
        // Growing step by step would touch twice the memory, page by page, and a boot waits for that.
        self.reads.reserve(extents.len().min(shape.units() as usize));
        for extent in extents.iter().filter_map(|extent| shape.within(*extent)) {
            for unit in extent.units(unit_sectors) {
                if self.mark(unit) {
                    stage.units += 1;
                    let first = extent.start().max(unit * unit_sectors);
                    let read = self.shape.touch_at(first, self.stages.len() as u16);
                    self.reads.push(read);
                }
            }
        }
    }

    /// Every byte of the extents, unit by unit in order of first use.
    fn full(&mut self, extents: &[Extent], stage: &mut StagePlan) {
        let shape = self.shape;
        let unit_sectors = shape.unit_sectors();
        let mut order: Vec<(u64, Vec<Extent>)> = Vec::new();
        let mut places: HashMap<u64, usize> = HashMap::new();
        for extent in extents.iter().filter_map(|extent| shape.within(*extent)) {
            let blocks = shape.whole_blocks(extent);
            for unit in blocks.units(unit_sectors) {
                let place = *places.entry(unit).or_insert_with(|| {
                    order.push((unit, Vec::new()));
                    order.len() - 1
                });
                let whole = Extent::at(unit * unit_sectors, unit_sectors);
                order[place].1.extend(whole.and_then(|whole| whole.intersection(blocks)));
            }
        }
        let number = self.stages.len() as u16;
        for (unit, parts) in order {
            let missing: ExtentSet = parts.iter().flat_map(|part| self.taken.missing_from(*part)).collect();
            for read in coalesce(&missing, &self.taken) {
                self.taken.insert(read);
                split(read, number, &mut self.reads);
            }
            stage.units += u64::from(self.mark(unit));
        }
    }

    fn rest_reads(&self) -> impl Iterator<Item = PlannedRead> + '_ {
        let number = self.rest.unwrap_or(0);
        (0..self.shape.units()).filter(|unit| self.is_wanted(*unit)).flat_map(move |unit| {
            let start = unit * self.shape.unit_sectors();
            let planned = self.is_planned(unit);
            let mut reads = Vec::new();
            match self.shape.mode {
                Mode::Touch if planned => {}
                Mode::Touch => reads.push(self.shape.touch_at(start, number)),
                Mode::Full => {
                    let whole = Extent::at(start, self.shape.unit_sectors());
                    let whole = whole.and_then(|whole| self.shape.within(whole));
                    let left = whole.into_iter().flat_map(|whole| self.taken.missing_from(whole));
                    left.for_each(|left| split(left, number, &mut reads));
                }
            }
            reads
        })
    }

    /// Units that some of its reads lie in, by stage and by cell of so many units, in order of address.
    pub fn cells_of(&self, reads: impl Iterator<Item = PlannedRead>, cell_units: u64) -> Vec<Vec<u64>> {
        let cells = self.shape.units().div_ceil(cell_units) as usize;
        let mut units = vec![vec![0; cells]; self.stages.len()];
        let mut seen = vec![0u64; self.planned.len()];
        for read in reads {
            let unit = read.start / self.shape.unit_sectors();
            let (word, bit) = (&mut seen[(unit / 64) as usize], 1 << (unit % 64));
            units[usize::from(read.stage)][(unit / cell_units) as usize] += u64::from(*word & bit == 0);
            *word |= bit;
        }
        units
    }
}

/// Reads whose number is known.
struct Counted<I> {
    reads: I,
    left: usize,
}

impl<I: Iterator<Item = PlannedRead>> Iterator for Counted<I> {
    type Item = PlannedRead;

    fn next(&mut self) -> Option<PlannedRead> {
        let read = self.reads.next()?;
        self.left -= 1;
        Some(read)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Joins extents across small gaps; what lies in the gap is read along, unless it was read already.
fn coalesce(extents: &ExtentSet, taken: &ExtentSet) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::new();
    for extent in extents.iter() {
        let near = joined.last_mut().filter(|last| {
            let gap = Extent::new(last.end(), extent.start());
            gap.is_none_or(|gap| gap.sectors() <= GAP_SECTORS_MAX && !taken.overlaps(gap))
        });
        match near {
            Some(last) => *last = Extent::new(last.start(), extent.end()).unwrap_or(*last),
            None => joined.push(extent),
        }
    }
    joined
}

/// Cuts at multiples of the largest I/O, so that no read costs two.
fn split(extent: Extent, stage: u16, reads: &mut Vec<PlannedRead>) {
    let step = READ_BYTES_MAX / SECTOR_BYTES;
    let mut start = extent.start();
    while start < extent.end() {
        let end = extent.end().min((start / step + 1) * step);
        reads.push(PlannedRead { start, sectors: (end - start) as u32, stage });
        start = end;
    }
}

/// What a volume of a known kind gives: reads a second, units hydrated at a rate, and a first latency.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    /// Operations a second.
    pub iops: u64,
    /// Hydration rate in bytes a second.
    pub hydration_bytes_per_s: u64,
    /// Throughput in bytes a second.
    pub throughput_bytes_per_s: u64,
    /// First-read latency in nanoseconds.
    pub first_read_ns: u64,
}

impl Expectation {
    /// A gp3 volume at its baseline: 3,000 IOPS and 125 MiB/s (vendor documentation), hydrating at 140 MB/s
    /// after 35 ms (third-party measurements).
    pub const GP3: Expectation = Expectation {
        iops: 3_000,
        hydration_bytes_per_s: 140_000_000,
        throughput_bytes_per_s: 125 << 20,
        first_read_ns: 35_000_000,
    };

    /// Nanoseconds that the plan takes at the least.
    pub fn elapsed_ns(&self, totals: &StagePlan, unit_bytes: u64) -> u64 {
        if totals.reads == 0 {
            return 0;
        }
        let per_s =
            |amount: u64, rate: u64| u128::from(amount) * u128::from(NS_PER_S) / u128::from(rate.max(1));
        let slowest = per_s(totals.reads, self.iops)
            .max(per_s(totals.units.saturating_mul(unit_bytes), self.hydration_bytes_per_s))
            .max(per_s(totals.bytes, self.throughput_bytes_per_s));
        u64::try_from(slowest).unwrap_or(u64::MAX).saturating_add(self.first_read_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(mode: Mode, sectors: u64) -> Shape {
        Shape { sectors, block_bytes: 512, unit_bytes: 512 << 10, mode }
    }

    fn at(start: u64, sectors: u64) -> Extent {
        Extent::at(start, sectors).unwrap()
    }

    #[test]
    fn touch_reads_each_unit_once_where_it_is_first_used() {
        let first = [at(5000, 8), at(1030, 8), at(1100, 4000)];
        let second = [at(0, 8), at(5000, 1)];
        let stages = [("a", &first[..]), ("b", &second[..])];
        let plan = Plan::new(stages, shape(Mode::Touch, 100_000));
        let starts: Vec<(u64, u16)> = plan.reads().map(|read| (read.start, read.stage)).collect();
        assert_eq!(starts, [(5000, 0), (1024, 0), (2048, 0), (3072, 0), (0, 1)]);
        assert_eq!(plan.stages()[0].units, 4);
        assert_eq!(plan.totals().bytes, 5 * 4096);
    }

    #[test]
    fn full_joins_small_gaps_and_splits_at_the_largest_io() {
        let extents = [at(600, 8), at(500, 8), at(0, 1024)];
        let plan = Plan::new([("a", &extents[..2])], shape(Mode::Full, 100_000));
        let reads: Vec<_> = plan.reads().collect();
        assert_eq!((reads[0].start, reads[0].sectors), (496, 16));
        assert_eq!((reads[1].start, reads[1].sectors), (512, 96));
        let plan = Plan::new([("a", &extents[..])], shape(Mode::Full, 100_000));
        assert_eq!(plan.totals().bytes, 1024 * 512);
    }

    #[test]
    fn the_rest_is_what_no_stage_has() {
        let extents = [at(1030, 8)];
        let plan = Plan::new([("a", &extents[..])], shape(Mode::Touch, 4096)).with_rest();
        let starts: Vec<u64> = plan.reads().map(|read| read.start).collect();
        assert_eq!(starts, [1024, 0, 2048, 3072]);
        assert_eq!(plan.stages()[1].units, 3);
        let odd = Plan::new([], shape(Mode::Full, 1025)).with_rest();
        assert_eq!(odd.totals().bytes, 1025 * 512);
        assert_eq!(Plan::new([], shape(Mode::Touch, 1025)).with_rest().reads().last().unwrap().sectors, 1);
    }

    #[test]
    fn the_rest_alone_is_what_the_stages_leave_of_some_extents() {
        let extents = [at(1030, 8)];
        let plan = Plan::new([("a", &extents[..])], shape(Mode::Touch, 8192));
        let within: ExtentSet = [at(1000, 100), at(5000, 8)].into_iter().collect();
        let rest = plan.rest_alone(Some(within));
        let starts: Vec<(u64, u16)> = rest.reads().map(|read| (read.start, read.stage)).collect();
        assert_eq!(starts, [(0, 0), (4096, 0)]);
        assert_eq!((rest.totals().units, rest.stages().len()), (2, 1));
        assert_eq!(plan.rest_alone(None).totals().units, 7);
        let full = Plan::new([("a", &extents[..])], shape(Mode::Full, 2048)).rest_alone(None);
        assert_eq!(full.totals().bytes, (2048 - 16) * 512, "whole blocks were read");
    }

    #[test]
    fn plans_of_as_many_reads_have_keys_of_their_own() {
        let of = |stage: Extent, mode| Plan::new([("a", &[stage][..])], shape(mode, 8192));
        let rest = |plan: &Plan, within: Extent| plan.rest_alone(Some([within].into_iter().collect())).key();
        let plan = of(at(1030, 8), Mode::Touch);
        let keys = [
            plan.key(),
            of(at(2060, 8), Mode::Touch).key(),
            of(at(1030, 8), Mode::Full).key(),
            plan.rest_alone(None).key(),
            of(at(2060, 8), Mode::Touch).rest_alone(None).key(),
            rest(&plan, at(3000, 8)),
            rest(&plan, at(5000, 8)),
            rest(&of(at(1030, 8), Mode::Full), at(3000, 8)),
            rest(&of(at(1040, 8), Mode::Full), at(3000, 8)),
        ];
        let mut apart = keys.to_vec();
        apart.sort_unstable();
        apart.dedup();
        assert_eq!(apart.len(), keys.len(), "{keys:x?}");
        assert_eq!(plan.key(), of(at(1030, 8), Mode::Touch).key());
    }

    #[test]
    fn a_stage_has_its_place_in_the_boot() {
        assert_eq!(places(STAGES_KNOWN), [0, 1, 2, 3, 4]);
        assert_eq!(places(["mine", "later"]), [2, 3], "a stage of one's own has that of `ready`");
        assert_eq!(places(["later", "mine", "ready"]), [3, 3, 3], "and none is before those of its profile");
    }

    #[test]
    fn gp3_hydrates_508_units_in_1_9_s() {
        let totals = StagePlan { units: 508, reads: 508, bytes: 508 * 4096, ..StagePlan::default() };
        let seconds = Expectation::GP3.elapsed_ns(&totals, 512 << 10) as f64 / 1e9;
        assert!((1.9..2.0).contains(&seconds), "{seconds}");
    }

    proptest! {
        #[test]
        fn every_unit_is_read_and_no_byte_twice(
            list in prop::collection::vec((0u64..9000, 1u64..1500), 0..40),
            cut in 0usize..40,
            full in any::<bool>(),
            rest in any::<bool>(),
        ) {
            let extents: Vec<Extent> = list.iter().map(|(start, n)| at(*start, *n)).collect();
            let (a, b) = extents.split_at(cut.min(extents.len()));
            let mode = if full { Mode::Full } else { Mode::Touch };
            let mut plan = Plan::new([("a", a), ("b", b)], shape(mode, 8192));
            if rest {
                plan = plan.with_rest();
            }
            let disk = at(0, 8192);
            let mut read = ExtentSet::new();
            for r in plan.reads() {
                let extent = at(r.start, u64::from(r.sectors));
                prop_assert!(disk.contains(extent));
                prop_assert!(u64::from(r.bytes()) <= READ_BYTES_MAX);
                prop_assert!(!read.overlaps(extent), "{extent:?} is read twice");
                read.insert(extent);
            }
            for extent in extents.iter().filter_map(|extent| extent.intersection(disk)) {
                match mode {
                    Mode::Full => prop_assert!(read.covers(extent)),
                    Mode::Touch => for unit in extent.units(1024) {
                        prop_assert!(read.overlaps(at(unit * 1024, 1024)), "unit {unit} is cold");
                    },
                }
            }
            if mode == Mode::Touch {
                prop_assert_eq!(plan.totals().units, plan.totals().reads);
            }
            let reads = plan.reads().count() as u64;
            prop_assert_eq!(plan.totals().reads, reads);
            prop_assert_eq!(plan.reads().size_hint(), (reads as usize, Some(reads as usize)));
            if rest {
                prop_assert_eq!(plan.totals().units, 8);
                prop_assert!(mode == Mode::Touch || read.covers(disk));
            }
            let units = |reads: usize, cell_units: u64| -> u64 {
                plan.cells_of(plan.reads().take(reads), cell_units).iter().flatten().sum()
            };
            let all = units(usize::MAX, 3);
            prop_assert_eq!(all, plan.totals().units);
            prop_assert_eq!(units(1, 8), reads.min(1));
            // Of one unit each, a cell is a unit.
            let cells = plan.cells_of(plan.reads(), 1);
            for unit in 0..8 {
                let is_read = plan.reads().any(|read| read.start / 1024 == unit);
                let counted: u64 = cells.iter().map(|stage| stage[unit as usize]).sum();
                prop_assert_eq!(counted, u64::from(is_read));
            }
        }
    }
}
