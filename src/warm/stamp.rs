//! That a volume was warmed, written down on its own filesystem: later boots have nothing to do.
//!
//! Holds: a stamp is believed on the volume that it names alone, by its serial, which no copy of the volume has; a file
//! that does not say so is no stamp. Without a serial there is none.

use crate::error::{Context, Error, Result};
use crate::files::{plain_name, write_atomically};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A stamp is a line.
const BYTES_MAX: u64 = 4096;
const SCHEMA: u32 = 1;

/// What a stamp says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    schema: u32,
    /// Serial of the volume.
    serial: String,
    /// Of the profile and how it was warmed.
    work: String,
    /// The boot that did it.
    boot_id: String,
}

fn path_of(dir: &Path, serial: &str) -> PathBuf {
    dir.join(format!("{}.warm", plain_name(serial)))
}

/// Whether this work was done on the volume with this serial.
pub fn is_there(dir: &Path, serial: &str, work: &str) -> bool {
    let path = path_of(dir, serial);
    let small =
        std::fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= BYTES_MAX);
    let stamp = if small { std::fs::read(&path).ok() } else { None };
    let stamp = stamp.and_then(|bytes| serde_json::from_slice::<Stamp>(&bytes).ok());
    stamp.is_some_and(|stamp| stamp.schema == SCHEMA && stamp.serial == serial && stamp.work == work)
}

/// What the kernel calls this boot; empty where it cannot be asked.
pub fn boot_id(root: &Path) -> String {
    let id = std::fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default();
    id.trim().into()
}

/// Writes that it was.
pub fn write(root: &Path, dir: &Path, serial: &str, work: &str) -> Result<()> {
    let stamp = Stamp { schema: SCHEMA, serial: serial.into(), work: work.into(), boot_id: boot_id(root) };
    let path = path_of(dir, serial);
    let fail = || format!("failed to write stamp `{}`", path.display());
    let mut bytes = serde_json::to_vec(&stamp).map_err(|error| Error::failed(fail()).because(error))?;
    bytes.push(b'\n');
    std::fs::create_dir_all(dir).context(fail)?;
    write_atomically(&path, &bytes).context(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_of_one_volume_and_one_work() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        assert!(!is_there(&below, "vol1", "w"));
        write(dir.path(), &below, "vol1", "w").unwrap();
        assert!(is_there(&below, "vol1", "w"));
        assert!(!is_there(&below, "vol2", "w") && !is_there(&below, "vol1", "v"));
        // The file of one volume, copied for another: what it says counts.
        std::fs::copy(path_of(&below, "vol1"), path_of(&below, "vol2")).unwrap();
        assert!(!is_there(&below, "vol2", "w"));
        for bad in ["", "{}", "[1]", "{\"schema\":2,\"serial\":\"vol1\",\"work\":\"w\",\"boot_id\":\"\"}"] {
            std::fs::write(path_of(&below, "vol1"), bad).unwrap();
            assert!(!is_there(&below, "vol1", "w"), "{bad}");
        }
    }

    #[test]
    fn a_serial_is_a_name_of_a_file_and_no_path() {
        assert_eq!(path_of(Path::new("d"), "vol0123"), Path::new("d/vol0123.warm"));
        assert_eq!(path_of(Path::new("d"), "../etc/x y"), Path::new("d/___etc_x_y.warm"));
    }
}
