use super::*;
use crate::profile::fixtures::{profiles, small};
use crate::profile::{bind, load};
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_is_written_reads_back_reduced(profile in profiles()) {
        profile.validate().unwrap();
        let read = decode(&encode(&profile)).unwrap();
        prop_assert_eq!(&read, &reduced(&profile));
        // The reduced one is whole: it is the same again, and lies where the full one lies.
        prop_assert_eq!(&reduced(&read), &read);
        prop_assert_eq!(bind::recorded(&read).unwrap(), bind::recorded(&profile).unwrap());
        prop_assert_eq!(load(&encode(&profile)).unwrap(), read);
    }

    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200), keep in 0usize..300) {
        let good = encode(&small());
        let mixed = [&good[10..(10 + keep).min(good.len() - 4)], &body].concat();
        for body in [body, mixed] {
            if let Ok(profile) = decode(&seal(MAGIC, VERSION, &body)) {
                profile.validate().unwrap();
                let _ = bind::recorded(&profile);
                prop_assert_eq!(decode(&encode(&profile)).unwrap(), reduced(&profile));
            }
        }
    }
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error() {
    let good = encode(&small());
    for cut in 0..good.len() {
        assert!(load(&good[..cut]).is_err(), "cut at {cut}");
    }
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(load(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    let body = |numbers: &[u64]| {
        let mut body = b"\x01p\x00\x01\x00".to_vec();
        numbers.iter().for_each(|number| put_varint(&mut body, *number));
        decode(&seal(MAGIC, VERSION, &body)).unwrap_err().full_text()
    };
    // Disk of 100 sectors, one stage `s`, then its count and one group: region, shift, length, extents.
    let one = |rest: &[u64]| body(&[&[100, 1, 1, u64::from(b's')], rest].concat());
    assert!(one(&[1 << 40]).contains("number of extents"));
    assert!(one(&[1, 1, 0, 1, 0, 1]).contains("region 1 is not there"));
    assert!(one(&[1, 0, 21, 1, 0, 1]).contains("alignment"));
    assert!(one(&[1, 0, 0, 2, 0, 1]).contains("extents of a group"));
    assert!(one(&[1, 0, 0, 0, 0, 1]).contains("group of extents is empty"));
    assert!(one(&[1, 0, 0, 1, 0, 0]).contains("empty or overflows"));
    assert!(one(&[1, 0, 20, 1, 0, u64::MAX >> 10]).contains("empty or overflows"));
    assert!(one(&[1, 0, 0, 1, 1, 1]).contains("empty or overflows"));
    assert!(one(&[1, 0, 0, 1, 0, 101]).contains("which has 100"));
    assert!(one(&[1, 0, 0, 1, 0, 1, 9]).contains("left over"));
    assert!(body(&[100, 65]).contains("number of stages"));
    let mut other = encode(&small());
    other[8] = 2;
    assert!(decode(&other).unwrap_err().full_text().contains("format version is 2"));
}

#[test]
fn a_stage_can_be_skipped() {
    let bytes = encode(&small());
    let mut compiled = Compiled::open(&bytes).unwrap();
    assert_eq!(compiled.next_stage().unwrap(), Some(("initrd".into(), 2)));
    assert_eq!(compiled.next_stage().unwrap(), Some(("ready".into(), 2)));
    assert_eq!(compiled.next_entry().unwrap().unwrap().extent, Extent::at(4096, 256).unwrap());
    assert_eq!(compiled.next_stage().unwrap(), None);
}

#[test]
fn blocks_of_4_kib_cost_what_they_must() {
    let mut profile = small();
    let block = |n: u64| Entry {
        region: 1,
        // A prime stride scatters them over 4 GiB, as a boot's reads are.
        extent: Extent::at(n * 611_953 % (1 << 20) * 8 % ((1 << 20) - 8), 8).unwrap(),
        first_use_ms: 0,
        stall_ms: 0,
    };
    profile.stages[1].entries = (0..1000).map(block).collect();
    let size = encode(&profile).len();
    assert!(size < 4300, "{size} bytes for 1,000 scattered blocks");
}

#[test]
fn uuids_take_16_bytes_and_other_names_their_length() {
    for (text, bytes) in [
        (Some("7f1c2f6e-91fd-4a3f-9d2c-3b0f6e1a2b3c"), 17),
        (Some("7F1C2F6E-91FD-4A3F-9D2C-3B0F6E1A2B3C"), 37),
        (Some("abcd1234-01"), 12),
        (Some(""), 1),
        (None, 1),
    ] {
        let mut out = Vec::new();
        put_uuid(&mut out, text);
        assert_eq!(out.len(), bytes, "{text:?}");
        assert_eq!(read_uuid(&mut Reader::new(&out)).unwrap().as_deref(), text);
    }
}
