//! What was measured of a volume, kept for whoever warms it next.
//!
//! Holds: a file names the volume that it is about and is not believed about another; a version or a key that is not
//! known is refused, and what is refused is as good as not there. Nothing is kept of a volume that cannot be
//! recognised.

use crate::error::{Context, Error, Result};
use crate::files::write_atomically;
use crate::units::ByteSize;
use crate::volume::Identity;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where they are, below the root.
pub const FOLDER: &str = "var/lib/ebs-prewarm/findings";
/// What a file begins with.
const FORMAT: &str = "ebs-prewarm-findings";
/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;
/// No engine has more reads in flight.
const DEPTH_MAX: u32 = 4096;
/// A file is some lines; its identity has 128 partitions at the most.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// A name in a folder has at most 255 bytes; ids of volumes have about 40.
const NAME_BYTES_MAX: usize = 100;

/// The unit of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// A power of two.
    pub bytes: u64,
    /// How sure that is, from 0 to 1.
    pub confidence: f64,
}

/// How it is best warmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// `touch` or `full`.
    pub mode: String,
    /// Reads in flight.
    pub depth: u32,
    /// What that hydrated a second.
    pub hydrated_bytes_per_s: f64,
    /// Why, for people.
    pub reason: String,
}

/// What was measured of a volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Findings {
    format: String,
    version: u32,
    /// The volume.
    pub volume: Identity,
    /// `probe` or `bench`.
    pub measured_by: String,
    /// When, in seconds since 1970.
    pub measured_unix_s: u64,
    /// `null` where it could not be told.
    pub unit: Option<Unit>,
    /// `null` where it was not measured.
    pub best: Option<Best>,
    /// Median of first reads that were cold, and of repeated ones; 0 where there were none.
    pub cold_us: u64,
    pub warm_us: u64,
}

impl Findings {
    /// Nothing found yet.
    pub fn new(volume: Identity, measured_by: &str, measured_unix_s: u64) -> Findings {
        Findings {
            format: FORMAT.into(),
            version: VERSION,
            volume,
            measured_by: measured_by.into(),
            measured_unix_s,
            unit: None,
            best: None,
            cold_us: 0,
            warm_us: 0,
        }
    }

    /// The unit, where it could be told.
    pub fn unit_bytes(&self) -> Option<u64> {
        self.unit.map(|unit| unit.bytes)
    }

    /// With what an older measurement found best, where this one did not look for that and found the same unit. Who found
    /// it stays named.
    pub fn over(self, older: Option<Findings>) -> Findings {
        let same_unit = |older: &Findings| self.unit.is_some() && older.unit_bytes() == self.unit_bytes();
        match older.filter(|older| self.best.is_none() && older.best.is_some() && same_unit(older)) {
            Some(Findings { best, measured_by, .. }) => Findings { best, measured_by, ..self },
            None => self,
        }
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::failed(format!("failed to accept findings: {what}")));
        if self.format != FORMAT {
            return refuse(format!("format `{}` is not `{FORMAT}`", self.format));
        }
        if self.version != VERSION {
            return refuse(format!("version {} is not known", self.version));
        }
        self.volume.validate()?;
        if let Some(unit) = self.unit {
            if !unit.bytes.is_power_of_two() || !(4096..=64 << 20).contains(&unit.bytes) {
                return refuse(format!(
                    "a unit of {} is no power of two from 4KiB to 64MiB",
                    ByteSize(unit.bytes)
                ));
            }
            if !(0.0..=1.0).contains(&unit.confidence) {
                return refuse(format!("a confidence of {}", unit.confidence));
            }
        }
        if let Some(best) = &self.best {
            if !["touch", "full"].contains(&best.mode.as_str()) {
                return refuse(format!("mode `{}`", best.mode));
            }
            if !(1..=DEPTH_MAX).contains(&best.depth) {
                return refuse(format!("a depth of {}", best.depth));
            }
        }
        Ok(())
    }

    /// Whether they are about that volume. One that carries a serial is known by it; any other by its partition table
    /// or filesystem and its size, which volumes of one image share.
    fn is_about(&self, identity: &Identity) -> bool {
        match (&self.volume.serial, &identity.serial) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (None, None) => {
                self.volume.sectors == identity.sectors
                    && self.volume.table_uuid == identity.table_uuid
                    && self.volume.fs_uuid == identity.fs_uuid
            }
            _ => false,
        }
    }
}

/// The name of a volume's file; `None` where it has nothing to be recognised by.
fn name(identity: &Identity) -> Option<String> {
    let keys = [&identity.serial, &identity.table_uuid, &identity.fs_uuid];
    let key = keys.into_iter().flatten().find(|key| !key.trim().is_empty())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let kept: String = key.chars().map(|c| if plain(c) { c } else { '_' }).take(NAME_BYTES_MAX).collect();
    // What was changed may now be another's name.
    let changed =
        if kept == *key { String::new() } else { format!("-{:08x}", crc32fast::hash(key.as_bytes())) };
    Some(format!("{kept}{changed}.json"))
}

/// The file of a volume in a folder.
pub fn path(folder: &Path, identity: &Identity) -> Option<PathBuf> {
    Some(folder.join(name(identity)?))
}

/// Writes them to their file in a folder, which is made where it is missing; where they went, or `None` where the
/// volume cannot be recognised.
pub fn save(folder: &Path, findings: &Findings) -> Result<Option<PathBuf>> {
    let Some(path) = path(folder, &findings.volume) else { return Ok(None) };
    let fail = || format!("failed to save findings in `{}`", folder.display());
    findings.check().context(fail)?;
    std::fs::create_dir_all(folder)
        .context(fail)
        .map_err(|error| error.hint("run as root, or name a folder of your own with --findings"))?;
    let mut text = serde_json::to_vec_pretty(findings).context(fail)?;
    text.push(b'\n');
    write_atomically(&path, &text).context(fail)?;
    Ok(Some(path))
}

/// What is known of a volume in a folder; `None` where nothing is.
pub fn load(folder: &Path, identity: &Identity) -> Result<Option<Findings>> {
    let Some(path) = path(folder, identity) else { return Ok(None) };
    let fail = || format!("failed to read findings `{}`", path.display());
    let remedy = |error: Error| error.hint("remove the file; `probe --save` or `bench` write it anew");
    let metadata = match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(fail)?,
    };
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        let bytes = metadata.len();
        return Err(remedy(Error::failed(format!(
            "{}: no file of at most {FILE_BYTES_MAX} bytes ({bytes})",
            fail()
        ))));
    }
    let bytes = std::fs::read(&path).context(fail)?;
    let findings = parse(&bytes).context(fail).map_err(remedy)?;
    Ok(findings.is_about(identity).then_some(findings))
}

/// From the bytes of a file.
pub fn parse(bytes: &[u8]) -> Result<Findings> {
    /// What is looked at first, so that a newer version is called that, and not a file with unknown keys.
    #[derive(Deserialize)]
    struct Head {
        format: String,
        version: u32,
    }
    let head: Head = serde_json::from_slice(bytes).context(|| "failed to parse findings".into())?;
    if head.format != FORMAT || head.version != VERSION {
        let Head { format, version } = head;
        return Err(Error::failed(format!(
            "failed to accept findings: `{format}` version {version}, known is `{FORMAT}` version {VERSION}"
        )));
    }
    let findings: Findings = serde_json::from_slice(bytes).context(|| "failed to parse findings".into())?;
    findings.check()?;
    Ok(findings)
}

/// What is known of a volume in a folder. What cannot be read is logged and not known: nobody waits for it.
pub fn known(folder: &Path, identity: &Identity) -> Option<Findings> {
    load(folder, identity).unwrap_or_else(|error| {
        tracing::warn!("{}", error.full_text());
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(serial: Option<&str>) -> Identity {
        Identity {
            serial: serial.map(Into::into),
            table_uuid: Some("c5a0a5a3".into()),
            ..Identity::of_size(2048)
        }
    }

    fn findings(serial: Option<&str>) -> Findings {
        Findings {
            unit: Some(Unit { bytes: 512 << 10, confidence: 0.9999 }),
            best: Some(Best {
                mode: "touch".into(),
                depth: 16,
                hydrated_bytes_per_s: 139e6,
                reason: "measured".into(),
            }),
            ..Findings::new(volume(serial), "bench", 1_700_000_000)
        }
    }

    #[test]
    fn what_was_saved_is_known_of_that_volume_and_of_no_other() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        for serial in [Some("vol0123"), None] {
            let saved = findings(serial);
            let path = save(&folder, &saved).unwrap().unwrap();
            assert_eq!(known(&folder, &volume(serial)), Some(saved), "{}", path.display());
            assert_eq!(known(&folder, &volume(Some("vol0124"))), None);
        }
        // Grown: a serial is enough, a partition table is not.
        assert!(known(&folder, &Identity { sectors: 4096, ..volume(Some("vol0123")) }).is_some());
        assert!(known(&folder, &Identity { sectors: 4096, ..volume(None) }).is_none());
        assert_eq!(save(&folder, &Findings::new(Identity::of_size(8), "probe", 0)).unwrap(), None);
        assert_eq!(known(&folder, &Identity::of_size(8)), None);
        assert_eq!(known(Path::new("/nonexistent"), &volume(None)), None);
    }

    #[test]
    fn what_was_found_best_outlives_a_measurement_that_does_not_look_for_it() {
        let bench = findings(None);
        let probe = |bytes| Findings {
            unit: Some(Unit { bytes, confidence: 0.999 }),
            ..Findings::new(volume(None), "probe", 1_700_000_001)
        };
        let merged = probe(512 << 10).over(Some(bench.clone()));
        assert_eq!((&merged.best, merged.measured_by.as_str()), (&bench.best, "bench"));
        assert_eq!((merged.unit.unwrap().confidence, merged.measured_unix_s), (0.999, 1_700_000_001));
        // Of another unit it says nothing, and what was measured anew goes before it.
        assert_eq!(probe(128 << 10).over(Some(bench.clone())), probe(128 << 10));
        assert_eq!(probe(512 << 10).over(None), probe(512 << 10));
        let full = Best { mode: "full".into(), ..bench.best.clone().unwrap() };
        let again = Findings { best: Some(full), ..bench.clone() };
        assert_eq!(again.clone().over(Some(bench)), again);
    }

    #[test]
    fn a_name_is_safe_and_no_two_volumes_share_it() {
        let named = |serial: &str| name(&volume(Some(serial))).unwrap();
        assert_eq!(named("vol0123"), "vol0123.json");
        assert!(!named("../../etc/passwd").contains('/') && !named("..").starts_with('.'));
        assert_ne!(named("a/b"), named("a_b"));
        assert_ne!(named(&"x".repeat(300)), named(&"x".repeat(301)));
        assert!(named(&"\u{fc}".repeat(200)).len() < 200);
        assert_eq!(name(&volume(Some("  "))).unwrap(), "c5a0a5a3.json");
    }

    #[test]
    fn what_is_not_known_is_refused_with_path_and_remedy() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        let path = save(&folder, &findings(Some("vol0123"))).unwrap().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to, why) in [
            ("\"version\": 1", "\"version\": 2", "version 2"),
            ("ebs-prewarm-findings", "other", "`other`"),
            ("\"unit\"", "\"units\"", "unknown field"),
            ("524288", "524289", "power of two"),
            ("0.9999", "1.5", "confidence"),
            ("\"touch\"", "\"write\"", "mode `write`"),
            ("\"depth\": 16", "\"depth\": 0", "depth of 0"),
            ("{", "", "parse"),
        ] {
            assert!(text.contains(from));
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = load(&folder, &volume(Some("vol0123"))).unwrap_err().full_text();
            assert!(error.contains(why) && error.contains("vol0123.json"), "{error}");
            assert!(error.contains("remove the file"), "{error}");
            assert_eq!(known(&folder, &volume(Some("vol0123"))), None);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(load(&folder, &volume(Some("vol0123"))).is_err());
    }
}
