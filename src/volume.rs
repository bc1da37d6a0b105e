//! What a volume is: its size, what it can be recognised by, and the regions that extents are relative to.
//!
//! Holds: a region is found again by what it carries (PARTUUID, filesystem UUID), never by a device name or a
//! start sector, so a profile survives a renamed device, a moved partition and a grown disk. No I/O.

use crate::error::{Error, Result};
use crate::extent::Extent;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Partitions of one volume: what a GPT has room for unless made larger on purpose.
pub const PARTITIONS_MAX: usize = 128;
/// Length of a name or a UUID, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// A partition, as the partition table and the filesystem on it name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition {
    /// Number in the table, from 1.
    pub number: u32,
    /// First sector on the disk.
    pub start: u64,
    /// Length in sectors.
    pub sectors: u64,
    /// Lower-case PARTUUID as the kernel prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partuuid: Option<String>,
    /// Filesystem UUID, where one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_uuid: Option<String>,
}

/// What a volume can be recognised by. All fields may be unknown but the size, which orders them first.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Size in sectors.
    pub sectors: u64,
    /// The disk's serial: on EBS the volume id. Differs between two volumes of one image; not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The disk's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Disk GUID (GPT) or disk signature (MBR).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_uuid: Option<String>,
    /// UUID of a filesystem that has the whole disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_uuid: Option<String>,
    /// Partitions in order of their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
}

/// What extents are relative to: the whole disk, or a partition found by what it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// PARTUUID; `None` for the whole disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partuuid: Option<String>,
    /// Filesystem UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_uuid: Option<String>,
    /// First sector on the disk it was recorded on.
    pub start: u64,
    /// Length in sectors there.
    pub sectors: u64,
}

/// One way in which a volume is not the one a profile was recorded on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The disk is smaller than what the profile names.
    Smaller { have_sectors: u64, want_sectors: u64 },
    /// No partition with that PARTUUID.
    NoPartition { partuuid: String },
    /// The partition is there but carries another filesystem.
    OtherFilesystem { partuuid: Option<String>, want: String, have: Option<String> },
    /// Another partition table.
    OtherTable { want: String, have: Option<String> },
    /// The partition is smaller than what the profile names.
    SmallerPartition { partuuid: String, have_sectors: u64, want_sectors: u64 },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |have: &Option<String>| have.clone().unwrap_or_else(|| "none".into());
        match self {
            Difference::Smaller { have_sectors, want_sectors } => {
                write!(f, "size: {have_sectors} sectors, the profile needs {want_sectors}")
            }
            Difference::NoPartition { partuuid } => write!(f, "partition: none has PARTUUID {partuuid}"),
            Difference::OtherFilesystem { partuuid, want, have } => {
                let place = partuuid.as_ref().map_or_else(|| "the disk".into(), |p| format!("partition {p}"));
                write!(f, "filesystem: {place} has UUID {}, the profile has {want}", shown(have))
            }
            Difference::OtherTable { want, have } => {
                write!(f, "partition table: id {}, the profile has {want}", shown(have))
            }
            Difference::SmallerPartition { partuuid, have_sectors, want_sectors } => {
                write!(f, "partition {partuuid}: {have_sectors} sectors, the profile needs {want_sectors}")
            }
        }
    }
}

impl Identity {
    /// An identity of which nothing is known but the size.
    pub fn of_size(sectors: u64) -> Self {
        Identity { sectors, ..Identity::default() }
    }

    /// Whether there is anything but the size to recognise it by.
    pub fn is_bound(&self) -> bool {
        self.table_uuid.is_some()
            || self.fs_uuid.is_some()
            || self.partitions.iter().any(|p| p.partuuid.is_some() || p.fs_uuid.is_some())
    }

    /// What it carries as a whole, which a copy carries as well: its partition table, else the filesystem that has it.
    pub fn carried(&self) -> Option<&str> {
        self.table_uuid.as_deref().or(self.fs_uuid.as_deref())
    }

    /// Whether an identity that came from a file keeps to the limits, so that nothing computed from it overflows.
    pub fn validate(&self) -> Result<()> {
        let refuse =
            |what: String| Err(Error::failed(format!("failed to accept the volume's identity: {what}")));
        if Extent::at(0, self.sectors).is_none() {
            return refuse(format!("its size is {} sectors", self.sectors));
        }
        if self.partitions.len() > PARTITIONS_MAX {
            return refuse(format!(
                "it has {} partitions, the limit is {PARTITIONS_MAX}",
                self.partitions.len()
            ));
        }
        if let Some(part) = self.partitions.iter().find(|part| Extent::at(part.start, part.sectors).is_none())
        {
            return refuse(format!("partition {} is empty or overflows", part.number));
        }
        let names = [&self.serial, &self.model, &self.table_uuid, &self.fs_uuid].into_iter();
        let names = names.chain(self.partitions.iter().flat_map(|part| [&part.partuuid, &part.fs_uuid]));
        if names.flatten().any(|name| name.len() > NAME_BYTES_MAX) {
            return refuse(format!("a name is longer than {NAME_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    /// The regions of this volume: the whole disk first, then each partition that can be found again.
    pub fn regions(&self) -> Vec<Region> {
        let disk = Region { partuuid: None, fs_uuid: self.fs_uuid.clone(), start: 0, sectors: self.sectors };
        let parts = self.partitions.iter().filter(|p| p.partuuid.is_some()).map(|p| Region {
            partuuid: p.partuuid.clone(),
            fs_uuid: p.fs_uuid.clone(),
            start: p.start,
            sectors: p.sectors,
        });
        std::iter::once(disk).chain(parts).collect()
    }

    /// Where a region recorded elsewhere lies on this volume. Sizes are not compared: a grown disk is the same.
    pub fn locate(&self, region: &Region) -> Result<Extent, Difference> {
        let (start, sectors, have_fs) = match &region.partuuid {
            None => (0, self.sectors, &self.fs_uuid),
            Some(wanted) => {
                let part = self.partitions.iter().find(|p| p.partuuid.as_ref() == Some(wanted));
                let part = part.ok_or_else(|| Difference::NoPartition { partuuid: wanted.clone() })?;
                (part.start, part.sectors, &part.fs_uuid)
            }
        };
        if let Some(want) = &region.fs_uuid
            && have_fs.as_ref() != Some(want)
        {
            return Err(Difference::OtherFilesystem {
                partuuid: region.partuuid.clone(),
                want: want.clone(),
                have: have_fs.clone(),
            });
        }
        Extent::at(start, sectors).ok_or(Difference::Smaller { have_sectors: self.sectors, want_sectors: 1 })
    }

    /// Whether `have` carries another partition table, where nothing else could tell: partitions and filesystems
    /// are recognised by their own UUIDs, and a table may be given a new one when a disk grows.
    pub fn other_table(&self, used: &[Region], have: &Identity) -> Option<Difference> {
        let told = used.iter().any(|region| region.partuuid.is_some() || region.fs_uuid.is_some());
        let want = self.table_uuid.as_ref().filter(|_| !told && !used.is_empty())?;
        (have.table_uuid.as_ref() != Some(want))
            .then(|| Difference::OtherTable { want: want.clone(), have: have.table_uuid.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Identity {
        Identity {
            sectors: 1 << 24,
            table_uuid: Some("t".into()),
            partitions: vec![Partition {
                number: 1,
                start: 2048,
                sectors: 1 << 20,
                partuuid: Some("p1".into()),
                fs_uuid: Some("f1".into()),
            }],
            ..Identity::default()
        }
    }

    #[test]
    fn a_moved_partition_on_a_grown_disk_is_found() {
        let region = disk().regions()[1].clone();
        let mut moved = disk();
        moved.sectors *= 2;
        moved.partitions[0].start = 4096;
        assert_eq!(moved.locate(&region), Ok(Extent::at(4096, 1 << 20).unwrap()));
    }

    #[test]
    fn another_filesystem_is_named() {
        let region = disk().regions()[1].clone();
        let mut other = disk();
        other.partitions[0].fs_uuid = None;
        let difference = other.locate(&region).unwrap_err();
        assert!(difference.to_string().contains("has UUID none, the profile has f1"), "{difference}");
        other.partitions.clear();
        assert!(other.locate(&region).unwrap_err().to_string().contains("PARTUUID p1"));
    }
}
