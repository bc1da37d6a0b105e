//! The profile for the boot: a short header and delta-coded varints, read as a stream.
//!
//! Holds: small, so that it fits user data beside a script; it keeps what warming needs (stages, order, regions
//! in use and how to find them) and drops what people look at (times, stalls, recordings, counts of events), see
//! [`reduced`]. No count is believed before the bytes for it are there. The bytes are described in
//! profiles/FORMATS.md.

use super::{EXTENTS_MAX, Entry, NAME_BYTES_MAX, Profile, REGIONS_MAX, STAGES_MAX, Stage, bind};
use crate::codec::{Reader, put_bytes, put_varint, seal, unseal, unzigzag, zigzag};
use crate::error::Result;
use crate::extent::Extent;
use crate::volume::{Identity, Partition, Region};

/// What a compiled profile starts with. The first byte is no text, the last two tell a mangled line end.
pub const MAGIC: &[u8; 8] = b"\x89EPWP\r\n\x1a";
/// Version of the format.
pub const VERSION: u16 = 1;

/// Alignments above 2^20 sectors save nothing more.
const SHIFT_MAX: u32 = 20;
/// 4 KiB, the block of almost every filesystem, as a power of two of sectors.
const BLOCK_SHIFT: u32 = 3;
/// The fewest bytes that an extent takes: two varints.
const EXTENT_BYTES_MIN: usize = 2;

/// Whether bytes claim to be a compiled profile.
pub fn is_compiled(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The part of a profile that the compiled form keeps: what [`decode`] gives for what [`encode`] wrote.
pub fn reduced(profile: &Profile) -> Profile {
    let ends = bind::used_ends(profile);
    // The disk keeps its place as the first region.
    let kept: Vec<usize> = (0..ends.len()).filter(|index| *index == 0 || ends[*index] > 0).collect();
    let regions: Vec<Region> = kept.iter().map(|index| profile.regions[*index].clone()).collect();
    let volume = profile.volume.as_ref().map(|volume| Identity {
        sectors: volume.sectors,
        table_uuid: volume.table_uuid.clone(),
        fs_uuid: regions.first().and_then(|disk| disk.fs_uuid.clone()),
        partitions: regions.iter().skip(1).map(|region| partition(volume, region)).collect(),
        ..Identity::default()
    });
    let moved = |index: u16| kept.iter().position(|old| *old == usize::from(index)).unwrap_or(0) as u16;
    let stage = |stage: &Stage| Stage {
        name: stage.name.clone(),
        entries: stage
            .entries
            .iter()
            .map(|entry| Entry {
                region: moved(entry.region),
                extent: entry.extent,
                first_use_ms: 0,
                stall_ms: 0,
            })
            .collect(),
    };
    Profile {
        name: profile.name.clone(),
        volume,
        regions,
        stages: profile.stages.iter().map(stage).collect(),
        ..Profile::default()
    }
}

fn partition(volume: &Identity, region: &Region) -> Partition {
    let found = volume.partitions.iter().find(|part| part.partuuid == region.partuuid);
    Partition {
        number: found.map_or(0, |part| part.number),
        start: region.start,
        sectors: region.sectors,
        partuuid: region.partuuid.clone(),
        fs_uuid: region.fs_uuid.clone(),
    }
}

/// The file's bytes, for a profile that passes [`Profile::validate`].
pub fn encode(profile: &Profile) -> Vec<u8> {
    let profile = reduced(profile);
    let mut body = Vec::with_capacity(256 + profile.extents() * 6);
    put_bytes(&mut body, profile.name.as_bytes());
    put_varint(&mut body, u64::from(profile.volume.is_some()));
    if let Some(volume) = &profile.volume {
        put_varint(&mut body, volume.sectors);
        put_uuid(&mut body, volume.table_uuid.as_deref());
    }
    put_varint(&mut body, profile.regions.len() as u64);
    for (index, region) in profile.regions.iter().enumerate() {
        if index > 0 {
            let parts = profile.volume.as_ref().map(|volume| &volume.partitions);
            put_varint(&mut body, parts.map_or(0, |parts| u64::from(parts[index - 1].number)));
            put_uuid(&mut body, region.partuuid.as_deref());
            put_varint(&mut body, region.start);
        }
        put_uuid(&mut body, region.fs_uuid.as_deref());
        put_varint(&mut body, region.sectors);
    }
    put_varint(&mut body, profile.stages.len() as u64);
    for stage in &profile.stages {
        put_bytes(&mut body, stage.name.as_bytes());
        put_varint(&mut body, stage.entries.len() as u64);
        // Either may be the shorter: it depends on how often alignment changes.
        let [whole, split] =
            [false, true].map(|split| put_groups(&stage.entries, profile.regions.len(), split));
        body.extend_from_slice(if split.len() < whole.len() { &split } else { &whole });
    }
    seal(MAGIC, VERSION, &body)
}

/// How many low bits of an extent's start and length are zero.
fn shift_of(extent: Extent) -> u32 {
    (extent.start() | extent.sectors()).trailing_zeros().min(SHIFT_MAX)
}

/// Neighbours in one region, and where asked for, on one side of the alignment to blocks.
fn put_groups(entries: &[Entry], regions: usize, split: bool) -> Vec<u8> {
    let class = |entry: &Entry| (entry.region, split && shift_of(entry.extent) >= BLOCK_SHIFT);
    let mut out = Vec::with_capacity(entries.len() * 6);
    let mut ends = vec![0u64; regions];
    for group in entries.chunk_by(|a, b| class(a) == class(b)) {
        let region = group[0].region;
        let shift = group.iter().map(|entry| shift_of(entry.extent)).min().unwrap_or(0);
        put_varint(&mut out, u64::from(region));
        put_varint(&mut out, u64::from(shift));
        put_varint(&mut out, group.len() as u64);
        let mut end = ends[usize::from(region)] >> shift;
        for entry in group {
            let (start, sectors) = (entry.extent.start() >> shift, entry.extent.sectors() >> shift);
            put_varint(&mut out, zigzag(start as i64 - end as i64));
            put_varint(&mut out, sectors);
            end = start + sectors;
        }
        ends[usize::from(region)] = end << shift;
    }
    out
}

/// 0 for none, 1 and 16 bytes for a UUID in its usual spelling, 2 + length and the text for any other.
fn put_uuid(out: &mut Vec<u8>, uuid: Option<&str>) {
    match (uuid, uuid.and_then(pack_uuid)) {
        (None, _) => out.push(0),
        (_, Some(packed)) => {
            out.push(1);
            out.extend_from_slice(&packed);
        }
        (Some(text), None) => {
            put_varint(out, text.len() as u64 + 2);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Where a UUID has its dashes.
const UUID_DASHES: [usize; 4] = [8, 13, 18, 23];

fn pack_uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 || UUID_DASHES.iter().any(|at| bytes[*at] != b'-') {
        return None;
    }
    let mut packed = [0; 16];
    let digits = bytes.iter().enumerate().filter(|(at, _)| !UUID_DASHES.contains(at));
    for (index, (_, digit)) in digits.enumerate() {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        packed[index / 2] |= value << (4 * (1 - index % 2));
    }
    Some(packed)
}

fn read_uuid(reader: &mut Reader<'_>) -> Result<Option<String>> {
    match reader.varint_max(NAME_BYTES_MAX as u64 + 2, "the length of a UUID")? {
        0 => Ok(None),
        1 => {
            let mut text = String::with_capacity(36);
            for byte in reader.take(16)? {
                if UUID_DASHES.contains(&text.len()) {
                    text.push('-');
                }
                text.extend(
                    [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
                );
            }
            Ok(Some(text))
        }
        length => {
            let bytes = reader.take(length as usize - 2)?;
            text(reader, bytes).map(Some)
        }
    }
}

fn text(reader: &Reader<'_>, bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| reader.error("a name is no UTF-8"))
}

/// A compiled profile, read stage by stage and extent by extent from its bytes.
#[derive(Debug)]
pub struct Compiled<'a> {
    /// The profile without its stages.
    pub head: Profile,
    reader: Reader<'a>,
    stages_left: u64,
    /// Extents left in this stage, and in all.
    entries_left: u64,
    extents_left: u64,
    /// The group that is being read: region, shift, extents left.
    region: u16,
    shift: u32,
    group_left: u64,
    /// By region: the end of the last extent.
    ends: Vec<u64>,
}

impl<'a> Compiled<'a> {
    /// Checks the whole file's checksum and reads the header.
    pub fn open(bytes: &'a [u8]) -> Result<Compiled<'a>> {
        let mut reader = Reader::new(unseal(bytes, MAGIC, VERSION, "a compiled profile")?.1);
        let name = reader.bytes(NAME_BYTES_MAX, "the length of the name")?;
        let name = text(&reader, name)?;
        let mut volume = None;
        if reader.varint_max(1, "the mark of a bound profile")? == 1 {
            let sectors = reader.varint()?;
            volume = Some(Identity { sectors, table_uuid: read_uuid(&mut reader)?, ..Identity::default() });
        }
        let count = reader.varint_max(REGIONS_MAX as u64, "the number of regions")?;
        let mut regions = Vec::new();
        for index in 0..count {
            regions.push(read_region(&mut reader, index, volume.as_mut())?);
        }
        let stages_left = reader.varint_max(STAGES_MAX as u64, "the number of stages")?;
        let ends = vec![0; regions.len()];
        let head = Profile { name, volume, regions, ..Profile::default() };
        let (entries_left, extents_left) = (0, EXTENTS_MAX as u64);
        Ok(Compiled {
            head,
            reader,
            stages_left,
            entries_left,
            extents_left,
            region: 0,
            shift: 0,
            group_left: 0,
            ends,
        })
    }

    /// The next stage's name and how many extents it has; skips what is left of the current one.
    pub fn next_stage(&mut self) -> Result<Option<(String, usize)>> {
        while self.next_entry()?.is_some() {}
        if self.stages_left == 0 {
            if self.reader.left() > 0 {
                return Err(self.reader.error("bytes are left over"));
            }
            return Ok(None);
        }
        self.stages_left -= 1;
        let name = self.reader.bytes(NAME_BYTES_MAX, "the length of a stage's name")?;
        let name = text(&self.reader, name)?;
        let max = self.extents_left.min((self.reader.left() / EXTENT_BYTES_MIN) as u64);
        self.entries_left = self.reader.varint_max(max, "the number of extents")?;
        self.extents_left -= self.entries_left;
        self.ends.fill(0);
        Ok(Some((name, self.entries_left as usize)))
    }

    /// The next extent of the stage.
    #[inline]
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.entries_left == 0 {
            return Ok(None);
        }
        if self.group_left == 0 {
            self.next_group()?;
        }
        let gap = self.reader.varint()?;
        let sectors = self.reader.varint()?;
        match self.entry(gap, sectors) {
            Some(entry) => Ok(Some(entry)),
            None => Err(self.reader.error("an extent is empty or overflows")),
        }
    }

    /// The rest of the group, as long as its numbers are the usual ones; [`Compiled::next_entry`] takes up where
    /// this leaves off. It returns no result that has room for an error, which costs half the time.
    fn usual_entries(&mut self, entries: &mut Vec<Entry>) {
        while self.group_left > 0 {
            let before = self.reader;
            let numbers = self.reader.quick_varint().zip(self.reader.quick_varint());
            match numbers.and_then(|(gap, sectors)| self.entry(gap, sectors)) {
                Some(entry) => entries.push(entry),
                None => {
                    self.reader = before;
                    return;
                }
            }
        }
    }

    /// What two numbers mean here.
    #[inline]
    fn entry(&mut self, gap: u64, sectors: u64) -> Option<Entry> {
        let end = &mut self.ends[usize::from(self.region)];
        let start = (*end >> self.shift).checked_add_signed(unzigzag(gap))?;
        // Shifted back, no bit may be lost.
        if (start | sectors).leading_zeros() <= self.shift {
            return None;
        }
        let extent = Extent::at(start << self.shift, sectors << self.shift)?;
        *end = extent.end();
        self.entries_left -= 1;
        self.group_left -= 1;
        Some(Entry { region: self.region, extent, first_use_ms: 0, stall_ms: 0 })
    }

    fn next_group(&mut self) -> Result<()> {
        let regions = self.head.regions.len() as u64;
        let region = self.reader.varint()?;
        if region >= regions {
            return Err(self.reader.error(&format!("region {region} is not there")));
        }
        let shift = self.reader.varint_max(u64::from(SHIFT_MAX), "an alignment")?;
        let count = self.reader.varint_max(self.entries_left, "the extents of a group")?;
        if count == 0 {
            return Err(self.reader.error("a group of extents is empty"));
        }
        (self.region, self.shift, self.group_left) = (region as u16, shift as u32, count);
        Ok(())
    }
}

/// The first region is the disk, the others are partitions; a bound profile's volume takes what they carry.
fn read_region(reader: &mut Reader<'_>, index: u64, volume: Option<&mut Identity>) -> Result<Region> {
    let (mut number, mut partuuid, mut start) = (0, None, 0);
    if index > 0 {
        number = reader.varint_max(u64::from(u32::MAX), "the number of a partition")? as u32;
        partuuid = read_uuid(reader)?;
        start = reader.varint()?;
    }
    let fs_uuid = read_uuid(reader)?;
    let sectors = reader.varint()?;
    let region = Region { partuuid, fs_uuid, start, sectors };
    if let Some(volume) = volume {
        let Region { partuuid, fs_uuid, start, sectors } = region.clone();
        match index {
            0 => volume.fs_uuid = fs_uuid,
            _ => volume.partitions.push(Partition { number, start, sectors, partuuid, fs_uuid }),
        }
    }
    Ok(region)
}

/// The profile in a file's bytes. The error names what is wrong and where, the caller adds the path.
pub fn decode(bytes: &[u8]) -> Result<Profile> {
    let mut compiled = Compiled::open(bytes)?;
    let mut stages = Vec::new();
    while let Some((name, count)) = compiled.next_stage()? {
        let mut entries = Vec::with_capacity(count);
        while let Some(entry) = compiled.next_entry()? {
            entries.push(entry);
            compiled.usual_entries(&mut entries);
        }
        stages.push(Stage { name, entries });
    }
    let profile = Profile { stages, ..compiled.head };
    profile.validate()?;
    Ok(profile)
}

#[cfg(test)]
mod tests;
