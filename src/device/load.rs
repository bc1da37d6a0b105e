//! How much a disk has to do: the kernel's own counters of its requests.
//!
//! Holds: a look is one read of an open file and allocates nothing.

use super::DeviceNumber;
use crate::error::{Context, Error, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Seventeen numbers of up to 20 digits.
const STAT_BYTES_MAX: usize = 512;

/// Requests of a whole disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// That ended since the disk is there, reads and writes.
    pub ended: u64,
    /// In flight.
    pub in_flight: u64,
}

/// The counters of one disk.
#[derive(Debug)]
pub struct Load {
    file: File,
    path: PathBuf,
}

impl Load {
    /// Of a whole disk.
    pub fn of(root: &Path, number: DeviceNumber) -> Result<Load> {
        let path = root.join(format!("sys/dev/block/{number}/stat"));
        let file = File::open(&path).context(|| format!("failed to open `{}`", path.display()))?;
        Ok(Load { file, path })
    }

    /// What they show now.
    pub fn look(&self) -> Result<Requests> {
        let mut text = [0; STAT_BYTES_MAX];
        let fail = || format!("failed to read `{}`", self.path.display());
        let length = self.file.read_at(&mut text, 0).context(fail)?;
        parse(&text[..length]).ok_or_else(|| Error::failed(fail()))
    }
}

/// Fields 1 and 5 count ended reads and writes, field 9 what is in flight (Documentation/block/stat.rst).
fn parse(text: &[u8]) -> Option<Requests> {
    let text = std::str::from_utf8(text).ok()?;
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse::<u64>().ok());
    let reads = fields.next()??;
    let writes = fields.nth(3)??;
    let in_flight = fields.nth(3)??;
    Some(Requests { ended: reads.checked_add(writes)?, in_flight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_writes_and_what_is_in_flight() {
        let text = b"     434        0    12345       99       12        0      800        7        3       95      106\n";
        assert_eq!(parse(text), Some(Requests { ended: 446, in_flight: 3 }));
        for bad in ["", "1 2 3", "a b c d e f g h i", "1 2 3 4 -5 6 7 8 9"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_disk_is_looked_at_below_any_root() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("sys/dev/block/259:0");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("stat"), "5 0 0 0 6 0 0 0 7\n").unwrap();
        let number = DeviceNumber { major: 259, minor: 0 };
        let load = Load::of(root.path(), number).unwrap();
        assert_eq!(load.look().unwrap(), Requests { ended: 11, in_flight: 7 });
        std::fs::write(dir.join("stat"), "").unwrap();
        assert!(load.look().unwrap_err().full_text().contains("259:0/stat"));
        assert!(Load::of(root.path(), DeviceNumber { major: 1, minor: 2 }).is_err());
    }
}
