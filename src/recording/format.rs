//! The file of a recording: an envelope with a checksum, a JSON header, process names, delta-coded touches.
//!
//! Holds: what [`decode`] gives passes [`validate`], so every reader may rely on it; no count is believed before
//! the bytes for it are there. The bytes are described in profiles/FORMATS.md.

use super::{Flags, Header, OWN_MAX, PROCESSES_MAX, Packed, Recording, TIME_US_MAX, TOUCHES_MAX, Touch};
use crate::codec::{Reader, put_bytes, put_varint, seal, unseal, unzigzag, zigzag};
use crate::error::{Context, Error, Result};
use crate::extent::Extent;

/// What a recording's file starts with. The first byte is no text, the last two tell a mangled line end.
pub const MAGIC: &[u8; 8] = b"\x89EPWR\r\n\x1a";
/// Version of the format.
pub const VERSION: u16 = 2;
/// Bytes of the JSON header: 129 regions and 4,096 CPUs take a tenth of it.
pub const HEADER_BYTES_MAX: usize = 1 << 20;
/// Bytes of a process name; the kernel keeps 15.
pub const PROCESS_BYTES_MAX: usize = 255;
/// Stages a recording may mark.
pub const STAGE_MARKS_MAX: usize = 64;
/// Length of an id or a name in the header, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// The fewest bytes that a touch takes: six varints.
const TOUCH_BYTES_MIN: usize = 6;

/// The file's bytes. Touches out of order are put in order of time; the rest is the caller's to [`validate`].
pub fn encode(recording: &Recording) -> Vec<u8> {
    let header = serde_json::to_vec(&recording.header).expect("a header of strings and numbers is JSON");
    let mut body = Vec::with_capacity(header.len() + recording.touches.len() * 12 + 64);
    put_bytes(&mut body, &header);
    put_varint(&mut body, recording.processes.len() as u64);
    for name in &recording.processes {
        put_bytes(&mut body, name.as_bytes());
    }
    put_varint(&mut body, recording.touches.len() as u64);
    if recording.touches.is_sorted_by_key(|packed| packed.time_us()) {
        put_touches(&mut body, recording.touches());
    } else {
        let mut sorted = recording.touches.clone();
        sorted.sort_by_key(|packed| packed.time_us());
        put_touches(&mut body, sorted.iter().map(|packed| packed.unpack()));
    }
    put_own(&mut body, &recording.own);
    seal(MAGIC, VERSION, &body)
}

fn put_touches(body: &mut Vec<u8>, touches: impl Iterator<Item = Touch>) {
    let (mut time_us, mut end) = (0, 0);
    for touch in touches {
        put_varint(body, touch.time_us - time_us);
        put_varint(body, zigzag(touch.extent.start() as i64 - end as i64));
        put_varint(body, touch.extent.sectors());
        put_varint(body, touch.latency_us.map_or(0, |latency| u64::from(latency) + 1));
        put_varint(body, u64::from(touch.flags.0));
        put_varint(body, u64::from(touch.process));
        (time_us, end) = (touch.time_us, touch.extent.end());
    }
}

fn put_own(body: &mut Vec<u8>, own: &[Extent]) {
    put_varint(body, own.len() as u64);
    let mut end = 0;
    for extent in own {
        put_varint(body, extent.start() - end);
        put_varint(body, extent.sectors());
        end = extent.end();
    }
}

/// Whether bytes claim to be a recording.
pub fn is_recording(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The recording in a file's bytes. The error names what is wrong and where, the caller adds the path.
pub fn decode(bytes: &[u8]) -> Result<Recording> {
    let (version, body) = unseal(bytes, MAGIC, VERSION, "a recording")?;
    let mut reader = Reader::new(body);
    let header = reader.bytes(HEADER_BYTES_MAX, "the header's length")?;
    let header: Header =
        serde_json::from_slice(header).context(|| "failed to read the recording's header".into())?;
    let names = reader.varint_max(PROCESSES_MAX as u64, "the number of processes")?;
    let mut processes = Vec::with_capacity((names as usize).min(reader.left()));
    for _ in 0..names {
        let name = reader.bytes(PROCESS_BYTES_MAX, "the length of a process name")?;
        let name = std::str::from_utf8(name).map_err(|_| reader.error("a process name is no UTF-8"))?;
        processes.push(name.to_owned());
    }
    let touches_max = TOUCHES_MAX.min(reader.left() / TOUCH_BYTES_MIN);
    let count = reader.varint_max(touches_max as u64, "the number of touches")?;
    let mut touches = Vec::with_capacity(count as usize);
    let (mut time_us, mut end) = (0, 0);
    for _ in 0..count {
        let touch = read_touch(&mut reader, time_us, end)?;
        (time_us, end) = (touch.time_us, touch.extent.end());
        touches.push(Packed::new(touch).ok_or_else(|| reader.error("a touch is too long"))?);
    }
    // Version 1 had none.
    let own = if version >= 2 { read_own(&mut reader)? } else { Vec::new() };
    if reader.left() > 0 {
        return Err(reader.error("bytes are left over"));
    }
    let recording = Recording { header, processes, touches, own };
    validate(&recording)?;
    Ok(recording)
}

fn read_own(reader: &mut Reader<'_>) -> Result<Vec<Extent>> {
    let count = reader.varint_max(OWN_MAX.min(reader.left() / 2) as u64, "the number of own extents")?;
    let mut own = Vec::with_capacity(count as usize);
    let mut end = 0u64;
    for _ in 0..count {
        let (gap, sectors) = (reader.varint()?, reader.varint()?);
        let extent = end.checked_add(gap).and_then(|start| Extent::at(start, sectors));
        let extent = extent.ok_or_else(|| reader.error("an own extent is empty or overflows"))?;
        end = extent.end();
        own.push(extent);
    }
    Ok(own)
}

fn read_touch(reader: &mut Reader<'_>, time_us: u64, end: u64) -> Result<Touch> {
    let time_us = reader
        .varint_max(TIME_US_MAX, "the time between two touches")?
        .checked_add(time_us)
        .filter(|time_us| *time_us <= TIME_US_MAX)
        .ok_or_else(|| reader.error("the time of a touch overflows"))?;
    let gap = unzigzag(reader.varint()?);
    let sectors = reader.varint()?;
    let extent = end.checked_add_signed(gap).and_then(|start| Extent::at(start, sectors));
    let extent = extent.ok_or_else(|| reader.error("an extent is empty or overflows"))?;
    let latency = reader.varint_max(u64::from(u32::MAX), "a latency")?;
    let latency_us = latency.checked_sub(1).map(|latency| latency as u32);
    let flags = Flags(reader.varint_max(u64::from(Flags::ALL.0), "a set of flags")? as u8);
    let process = reader.varint_max(PROCESSES_MAX as u64, "a process")? as u16;
    Ok(Touch { extent, time_us, latency_us, flags, process })
}

/// What every recording keeps to, whether it was traced, imported or read from a file.
pub fn validate(recording: &Recording) -> Result<()> {
    let header = &recording.header;
    let refuse = |what: String| Err(Error::failed(format!("failed to accept the recording: {what}")));
    if header.id.is_empty() {
        return refuse("it has no id".into());
    }
    let marks = header.stages.iter().map(|mark| &mark.name);
    let names = [&header.id, &header.kernel, &header.boot_id, &header.device].into_iter().chain(marks);
    if let Some(name) = names.into_iter().find(|name| name.len() > NAME_BYTES_MAX) {
        return refuse(format!("a name has {} bytes, the limit is {NAME_BYTES_MAX}", name.len()));
    }
    if header.stages.len() > STAGE_MARKS_MAX {
        return refuse(format!("it marks {} stages, the limit is {STAGE_MARKS_MAX}", header.stages.len()));
    }
    if let Some(volume) = &header.volume {
        volume.validate()?;
    }
    if recording.processes.len() > PROCESSES_MAX {
        return refuse(format!(
            "it names {} processes, the limit is {PROCESSES_MAX}",
            recording.processes.len()
        ));
    }
    if recording.processes.iter().any(|name| name.len() > PROCESS_BYTES_MAX) {
        return refuse(format!("a process name is longer than {PROCESS_BYTES_MAX} bytes"));
    }
    if recording.touches.len() > TOUCHES_MAX {
        return refuse(format!("it has {} touches, the limit is {TOUCHES_MAX}", recording.touches.len()));
    }
    let sectors = header.volume.as_ref().map_or(u64::MAX, |volume| volume.sectors);
    for (number, touch) in recording.touches().enumerate() {
        if usize::from(touch.process) >= recording.processes.len() {
            return refuse(format!("touch {number} names process {}, which is not there", touch.process));
        }
        if touch.extent.end() > sectors {
            let end = touch.extent.end();
            return refuse(format!("touch {number} ends at sector {end}, the volume has {sectors}"));
        }
    }
    if let Some(own) = recording.own.iter().find(|own| own.end() > sectors) {
        return refuse(format!("an own extent ends at sector {}, the volume has {sectors}", own.end()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::StageMark;
    use crate::volume::Identity;
    use proptest::prelude::*;

    fn touches() -> impl Strategy<Value = Vec<Touch>> {
        let touch = (
            0u64..1 << 40,
            1u64..1 << 23,
            0u64..=TIME_US_MAX,
            prop::option::of(0..u32::MAX),
            0..=Flags::ALL.0,
            0u16..3,
        );
        prop::collection::vec(touch, 0..60).prop_map(|list| {
            let mut list: Vec<Touch> = list
                .into_iter()
                .map(|(start, sectors, time_us, latency_us, flags, process)| Touch {
                    extent: Extent::at(start, sectors).unwrap(),
                    time_us,
                    latency_us,
                    flags: Flags(flags),
                    process,
                })
                .collect();
            list.sort_by_key(|touch| touch.time_us);
            list
        })
    }

    fn recording(touches: Vec<Touch>) -> Recording {
        Recording {
            header: Header {
                id: "r1".into(),
                volume: Some(Identity::of_size(1 << 41)),
                lost_by_cpu: vec![0, 7],
                stages: vec![StageMark { name: "ready".into(), from_us: 12 }],
                ..Header::default()
            },
            processes: vec!["init".into(), "sh".into(), "?".into()],
            touches: touches.into_iter().map(|touch| Packed::new(touch).unwrap()).collect(),
            own: vec![Extent::at(16, 8).unwrap(), Extent::at(24, 1).unwrap()],
        }
    }

    fn small() -> Recording {
        let touch = |start, time_us, latency_us| Touch {
            extent: Extent::at(start, 8).unwrap(),
            time_us,
            latency_us,
            flags: Flags::READ,
            process: 1,
        };
        recording(vec![touch(4096, 5, Some(30)), touch(0, 9, None)])
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(list in touches()) {
            let recording = recording(list);
            prop_assert_eq!(decode(&encode(&recording)).unwrap(), recording);
        }

        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200), keep in 0usize..200) {
            let _ = decode(&seal(MAGIC, VERSION, &body));
            // A real file up to a point, then noise under a good checksum.
            let good = encode(&small());
            let body = [&good[10..(10 + keep).min(good.len() - 4)], &body].concat();
            if let Ok(read) = decode(&seal(MAGIC, VERSION, &body)) {
                validate(&read).unwrap();
            }
        }
    }

    #[test]
    fn touches_out_of_order_are_put_in_order() {
        let mut shuffled = small();
        shuffled.touches.reverse();
        assert_eq!(decode(&encode(&shuffled)).unwrap(), small());
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_an_error() {
        let good = encode(&small());
        for cut in 0..good.len() {
            assert!(decode(&good[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn absurd_own_extents_are_named() {
        let header = serde_json::to_vec(&small().header).unwrap();
        let file = |rest: &[u64]| {
            let mut body = Vec::new();
            put_bytes(&mut body, &header);
            [&[0, 0], rest].concat().iter().for_each(|value| put_varint(&mut body, *value));
            decode(&seal(MAGIC, 2, &body)).unwrap_err().full_text()
        };
        assert!(file(&[1 << 40]).contains("number of own extents"));
        assert!(file(&[1, 5, 0]).contains("empty"));
        assert!(file(&[1, u64::MAX, 8]).contains("overflows"));
        assert!(file(&[1, 0, 8, 9]).contains("left over"));
        assert!(file(&[]).contains("too early"));
        assert!(file(&[1, 1 << 43, 8]).contains("the volume has"));
    }

    #[test]
    fn absurd_counts_and_foreign_values_are_named() {
        let header = serde_json::to_vec(&small().header).unwrap();
        let file = |rest: &[u64]| {
            let mut body = Vec::new();
            put_bytes(&mut body, &header);
            rest.iter().for_each(|value| put_varint(&mut body, *value));
            // As version 1 has it: what follows the touches is left over.
            decode(&seal(MAGIC, 1, &body)).unwrap_err().full_text()
        };
        assert!(file(&[u64::MAX]).contains("number of processes"));
        assert!(file(&[0, 1 << 40]).contains("number of touches"));
        assert!(file(&[1, 0, 1, 0, 0, 0, 0, 0, 0]).contains("empty"));
        assert!(file(&[1, 0, 1, 0, 1, 1, 0, 0, 0]).contains("overflows"));
        assert!(file(&[1, 0, 1, 0, 0, 1 << 24, 0, 0, 0]).contains("too long"));
        assert!(file(&[1, 0, 1, 0, 0, 8, 0, 64, 0]).contains("flags"));
        assert!(file(&[1, 0, 1, 0, 0, 8, 0, 1, 1]).contains("process 1"));
        assert!(file(&[1, 0, 1, 0, 1 << 43, 8, 0, 1, 0]).contains("the volume has"));
        assert!(file(&[0, 0, 7]).contains("left over"));
        let mut other = encode(&small());
        other[8] = 9;
        assert!(decode(&other).unwrap_err().full_text().contains("format version is 9"));
        assert!(decode(b"").unwrap_err().full_text().contains("empty"));
        assert!(decode(b"format: ebs-prewarm").unwrap_err().full_text().contains("start like one"));
    }
}
