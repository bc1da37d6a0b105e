use super::lines::{Wrong, number_of, others_in};
use super::*;
use crate::extent::Extent;
use crate::profile::fixtures::{profiles, small};
use crate::profile::load;
use proptest::prelude::*;

fn error(text: &str) -> String {
    load(text.as_bytes()).unwrap_err().full_text()
}

/// The text with one change and a checksum that fits.
fn edited(from: &str, to: &str) -> String {
    let text = write(&small()).replacen(from, to, 1);
    let rest: String = text.split_inclusive('\n').filter(|line| !line.starts_with("checksum:")).collect();
    let sum = checksum_line(crc(&[rest.as_bytes()]));
    assert_ne!(text, write(&small()), "nothing was changed");
    rest.replacen("version: 1\n", &format!("version: 1\n{sum}"), 1)
}

proptest! {
    #[test]
    fn usual_lines_are_read_as_any_are(
        line in "  ([0-9]{1,9} ){5}[0-9]{1,5}\n",
        usual in "  [0-9] [0-9] [0-9]{1,8} [0-9]{1,3} [0-9]{1,5} [0-9]{1,2}\n",
        wrong in "[ 0-9#\\r\\x2f\\x3a\\x80ÿ]{0,3}", at in 0usize..40,
    ) {
        let tail = "  1 1 0 8 100 200\n".repeat(3);
        let mut spoilt = usual.clone();
        spoilt.replace_range(at.min(usual.len())..(at + 1).min(usual.len()), &wrong);
        for text in [line + &tail, usual + &tail, spoilt + &tail] {
            let mut lines = Lines { bytes: text.as_bytes(), at: 0 };
            let mut slow = Lines { bytes: text.as_bytes(), at: 0 };
            let (read, expected) = (lines.line(), slow.any_line());
            prop_assert_eq!(read.map_err(Wrong::text), expected.map_err(Wrong::text));
            prop_assert_eq!(lines.at, slow.at);
        }
    }

    #[test]
    fn eight_characters_are_told_apart(bytes in any::<[u8; 8]>(), digits in "[0-9]{1,8}") {
        let others = others_in(u64::from_le_bytes(bytes));
        for (at, byte) in bytes.iter().enumerate() {
            prop_assert_eq!(others >> at & 1 == 1, !byte.is_ascii_digit());
        }
        let mut padded = bytes;
        padded[..digits.len()].copy_from_slice(digits.as_bytes());
        prop_assert_eq!(number_of(u64::from_le_bytes(padded), digits.len()), digits.parse::<u64>().unwrap());
    }

    #[test]
    fn what_is_written_reads_back_and_is_yaml(profile in profiles()) {
        let text = write(&profile);
        prop_assert_eq!(&load(text.as_bytes()).unwrap(), &profile);
        prop_assert_eq!(&seal(text.as_bytes()).unwrap(), &text);
        let yaml: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let lines = yaml["extents"].as_str().unwrap();
        prop_assert_eq!(lines.lines().count(), profile.extents());
        prop_assert_eq!(yaml["name"].as_str().unwrap(), profile.name);
    }

    #[test]
    fn no_text_panics(at in 0usize..2000, noise in "\\PC{0,8}", cut in 0usize..10) {
        let mut text = write(&small());
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let end = (at + cut).min(text.len());
        if text.is_char_boundary(end) {
            text.replace_range(at..end, &noise);
        }
        let _ = load(text.as_bytes());
        if let Ok(sealed) = seal(text.as_bytes()) {
            prop_assert_eq!(write(&load(sealed.as_bytes()).unwrap()), sealed);
        }
    }
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error() {
    let good = write(&small()).into_bytes();
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
fn an_edit_by_hand_is_noticed_and_sealed() {
    let text = write(&small()).replacen(
        "  1 1 64 8 1250 3\n",
        "  # not worth it\n\n  1 1 80 8 1250 3\r\n  1 1 0 8 0 0",
        1,
    );
    assert!(error(&text).contains("checksum does not match"), "{}", error(&text));
    assert!(error(&text).contains("profile seal"));
    let sealed = seal(text.as_bytes()).unwrap();
    let profile = load(sealed.as_bytes()).unwrap();
    assert_eq!(profile.stages[1].entries.len(), 3);
    assert_eq!(profile.stages[1].entries[1].extent, Extent::at(80, 8).unwrap());
}

#[test]
fn errors_name_the_line() {
    let line = 1 + write(&small()).lines().position(|line| line == "  1 1 64 8 1250 3").unwrap();
    for (to, what) in [
        ("  1 1 64 8 1250", "is not `STAGE REGION"),
        ("  1 1 64 8 1250 3 4", "is not `STAGE REGION"),
        ("  1 1 64  8 1250 3", "is not `STAGE REGION"),
        ("  1 1 -64 8 1250 3", "is not `STAGE REGION"),
        (" 1 1 64 8 1250 3", "two spaces"),
        ("  2 1 64 8 1250 3", "stage 2 is not in the header"),
        ("  0 1 64 8 1250 3", "stage 0 comes after stage 1"),
        ("  1 3 64 8 1250 3", "region 3 is not in the header"),
        ("  1 1 64 0 1250 3", "0 sectors from 64 are empty"),
        ("  1 1 1048576 8 1250 3", "ends at sector 1048584, region 1 has 1048576"),
        ("  1 1 64 8 1250 4294967296", "a time is larger"),
        ("  1 1 1000000000000000000 8 1250 3", "more than 18 digits"),
    ] {
        let text = error(&edited("  1 1 64 8 1250 3", to));
        assert!(text.contains(what) && text.contains(&format!("line {line}: ")), "{to}: {text}");
    }
}

#[test]
fn headers_that_lie_are_refused() {
    for (from, to, what) in [
        ("format: ebs-prewarm-profile", "format: other", "its format is `other`"),
        ("version: 1", "version: 2", "format version is 2"),
        ("version: 1", "version: 1\nsize: 3", "unknown field"),
        ("extents: 2", "extents: 3", "the header says 3"),
        ("extents: 2", "extents: 99999999999999", "the header says 9999"),
        ("extents: 2", "extents: x", "failed to read the profile's header"),
        ("- name: ready", "- name: initrd", "two stages `initrd`"),
        ("sectors: 2097152", "sectors: 18446744073709551615", "its size is"),
        ("sectors: 1048576", "sectors: 0", "is empty"),
    ] {
        let text = error(&edited(from, to));
        assert!(text.contains(what), "{to}: {text}");
    }
    assert!(error("").contains("is empty"));
    assert!(error("extents: |\n").contains("header"));
    assert!(error("name: x\nother: yaml\n").contains("no line says"));
    assert!(error(&write(&small()).replacen("checksum: ", "checksun: ", 1)).contains("no line `checksum:`"));
    assert!(load(&[0xff; 64]).is_err());
}

#[test]
fn the_file_looks_as_described() {
    let text = write(&small());
    assert!(text.starts_with("format: ebs-prewarm-profile\nversion: 1\nchecksum: \""), "{text}");
    assert!(text.ends_with(
        "extents: |\n  0 0 0 1 900 35\n  0 2 0 8 950 0\n  1 1 4096 256 1200 41\n  1 1 64 8 1250 3\n"
    ));
}
