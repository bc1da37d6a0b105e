//! What kind of storage a disk is, and what is known of it.
//!
//! Holds: a disk is judged by what it says of itself, not by the machine it is in: a loop device on a machine of any
//! cloud is a loop device. The root of `/sys` is an argument.

use super::nvme::{self, EBS_MODEL};
use super::sysfs::{kernel_name, read};
use super::{Device, DeviceNumber};
use std::path::Path;

/// A kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A volume of Amazon's Elastic Block Store.
    Ebs,
    /// A disk of an Amazon instance itself.
    Ec2InstanceStore,
    /// A persistent disk or Hyperdisk of Google's Compute Engine.
    Gcp,
    /// A disk of a Compute Engine machine itself.
    GcpLocal,
    /// A managed disk of Microsoft's Azure.
    Azure,
    /// A disk in a machine of Alibaba's cloud.
    Alibaba,
    /// A file behind a block device.
    Loop,
    /// An image file.
    Image,
    /// Any other.
    Unknown,
}

impl Kind {
    /// As it stands in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ebs => "ebs",
            Kind::Ec2InstanceStore => "ec2-instance-store",
            Kind::Gcp => "gcp",
            Kind::GcpLocal => "gcp-local",
            Kind::Azure => "azure",
            Kind::Alibaba => "alibaba",
            Kind::Loop => "loop",
            Kind::Image => "image",
            Kind::Unknown => "unknown",
        }
    }

    /// Whether first reads wait on such storage; `None` where that is not known.
    pub fn hydrates(self) -> Option<bool> {
        match self {
            Kind::Ebs | Kind::Alibaba => Some(true),
            Kind::Gcp | Kind::GcpLocal | Kind::Ec2InstanceStore => Some(false),
            Kind::Azure | Kind::Loop | Kind::Image | Kind::Unknown => None,
        }
    }

    /// What is known, and from whom.
    pub fn known(self) -> &'static str {
        match self {
            // Amazon EBS user guide, "Initialize Amazon EBS volumes"; EBS direct APIs, `ListSnapshotBlocks`.
            Kind::Ebs => {
                "a volume made from a snapshot fetches what was written when it is first read (vendor documentation)"
            }
            // Amazon EC2 user guide, "Instance store": it is empty when an instance starts.
            Kind::Ec2InstanceStore => {
                "a disk of the machine itself, made from no snapshot: it needs no warming"
            }
            // Compute Engine documentation, "Restore from a snapshot": full performance at once, no pre-warming.
            Kind::Gcp => "a disk made from a snapshot needs no warming (vendor documentation)",
            Kind::GcpLocal => "a disk of the machine itself, made from no snapshot: it needs no warming",
            Kind::Azure => {
                "how its first reads behave differs between kinds of disk; it is measured as any other"
            }
            // "ThinkAhead", FAST'26: units of 2 MiB, tails of seconds.
            Kind::Alibaba => {
                "a volume made from an image fetches units of 2 MiB when they are first read (FAST'26, \"ThinkAhead\")"
            }
            Kind::Loop => "a file behind a loop device: as cold as what is behind the file",
            Kind::Image => "an image file: as cold as what is behind it",
            Kind::Unknown => "nothing is known of its first reads; it is measured as any other",
        }
    }
}

/// A disk's storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    pub kind: Kind,
    /// The maker of the machine, as its firmware says.
    pub machine: Option<String>,
    /// The volume's id, as the cloud's own tools write it.
    pub volume_id: Option<String>,
    /// The name that the volume was attached under.
    pub attached_as: Option<String>,
}

impl Device {
    /// What kind of storage it is; asks its controller, where it has one that knows more than `/sys`.
    pub fn storage(&self, root: &Path) -> Storage {
        let mut storage = storage(root, self.number());
        let is_nvme = self.number().and_then(|number| kernel_name(root, number));
        if storage.kind == Kind::Ebs
            && is_nvme.is_some_and(|name| name.starts_with("nvme"))
            && let Ok(controller) = nvme::identify(self.file())
            && controller.is_ebs()
        {
            storage.volume_id = Some(volume_id(&controller.serial));
            storage.attached_as = controller.attached_as;
        }
        storage
    }

    /// What EBS counts for it, where it is such a volume behind NVMe and answers.
    pub fn ebs_statistics(&self) -> Option<nvme::Statistics> {
        nvme::read_statistics(self.file()).ok()
    }
}

/// `vol0123` is written `vol-0123` everywhere else.
fn volume_id(serial: &str) -> String {
    match serial.strip_prefix("vol") {
        Some(rest) if !rest.starts_with('-') => format!("vol-{rest}"),
        _ => serial.into(),
    }
}

/// From what `/sys` says of a disk and of the machine; `None` stands for an image file.
pub fn storage(root: &Path, number: Option<DeviceNumber>) -> Storage {
    let machine = read(&root.join("sys/class/dmi/id/sys_vendor"));
    let mut storage = Storage { kind: Kind::Image, machine, volume_id: None, attached_as: None };
    let Some(number) = number else { return storage };
    let name = kernel_name(root, number).unwrap_or_default();
    let dir = root.join(format!("sys/dev/block/{number}"));
    let of_disk = |file: &str| read(&dir.join(file)).unwrap_or_default();
    let (vendor, model) = (of_disk("device/vendor"), of_disk("device/model"));
    let machine = storage.machine.clone().unwrap_or_default();
    let amazon = machine == "Amazon EC2"
        || read(&root.join("sys/class/dmi/id/bios_version")).is_some_and(|text| text.contains("amazon"));
    storage.kind = match (vendor.as_str(), model.as_str()) {
        _ if name.starts_with("loop") => Kind::Loop,
        (_, EBS_MODEL) => Kind::Ebs,
        (_, model) if model.starts_with("Amazon EC2 NVMe Instance Storage") => Kind::Ec2InstanceStore,
        ("Google", "PersistentDisk") | (_, "nvme_card-pd") => Kind::Gcp,
        ("Google", "EphemeralDisk") => Kind::GcpLocal,
        (_, model) if model.starts_with("nvme_card") => Kind::GcpLocal,
        ("Msft", "Virtual Disk") => Kind::Azure,
        (_, model) if model.starts_with("MSFT NVMe Accelerator") => Kind::Azure,
        // Volumes behind Xen say nothing of themselves, and an instance of that age has few other disks.
        _ if amazon && name.starts_with("xvd") => Kind::Ebs,
        (_, model) if model.starts_with("Alibaba Cloud Elastic Block Storage") => Kind::Alibaba,
        _ if machine == "Alibaba Cloud" && name.starts_with("vd") => Kind::Alibaba,
        _ => Kind::Unknown,
    };
    if storage.kind == Kind::Ebs {
        storage.volume_id = read(&dir.join("device/serial")).map(|serial| volume_id(&serial));
    }
    storage
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A machine with one disk.
    fn machine(sys_vendor: &str, name: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/class/dmi/id/sys_vendor", &format!("{sys_vendor}\n"));
        write(&format!("sys/devices/{name}/dev"), "259:0\n");
        for (file, text) in files {
            write(&format!("sys/devices/{name}/{file}"), text);
        }
        fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
        symlink(format!("../../devices/{name}"), root.path().join("sys/dev/block/259:0")).unwrap();
        root
    }

    const NUMBER: DeviceNumber = DeviceNumber { major: 259, minor: 0 };

    #[test]
    fn a_disk_is_known_by_what_it_says_of_itself() {
        let nvme = |model: &'static str| vec![("device/model", model)];
        let scsi = |vendor: &'static str, model: &'static str| {
            vec![("device/vendor", vendor), ("device/model", model)]
        };
        for (sys_vendor, name, files, kind, hydrates) in [
            (
                "Amazon EC2",
                "nvme0n1",
                nvme("Amazon Elastic Block Store              \n"),
                Kind::Ebs,
                Some(true),
            ),
            (
                "Amazon EC2",
                "nvme1n1",
                nvme("Amazon EC2 NVMe Instance Storage\n"),
                Kind::Ec2InstanceStore,
                Some(false),
            ),
            ("Amazon EC2", "xvda", vec![], Kind::Ebs, Some(true)),
            ("Xen", "xvda", vec![], Kind::Unknown, None),
            ("Google", "sda", scsi("Google  \n", "PersistentDisk  \n"), Kind::Gcp, Some(false)),
            ("Google", "nvme0n1", nvme("nvme_card-pd\n"), Kind::Gcp, Some(false)),
            ("Google", "nvme0n2", nvme("nvme_card3\n"), Kind::GcpLocal, Some(false)),
            ("Microsoft Corporation", "sda", scsi("Msft    \n", "Virtual Disk    \n"), Kind::Azure, None),
            ("Microsoft Corporation", "nvme0n1", nvme("MSFT NVMe Accelerator v1.0\n"), Kind::Azure, None),
            ("Alibaba Cloud", "vda", vec![], Kind::Alibaba, Some(true)),
            ("Google", "loop0", vec![], Kind::Loop, None),
            ("QEMU", "vda", vec![], Kind::Unknown, None),
        ] {
            let root = machine(sys_vendor, name, &files);
            let found = storage(root.path(), Some(NUMBER));
            assert_eq!((found.kind, found.kind.hydrates()), (kind, hydrates), "{sys_vendor} {name}");
            assert_eq!(found.machine.as_deref(), Some(sys_vendor));
            assert!(!found.kind.known().is_empty() && !found.kind.name().is_empty());
        }
    }

    #[test]
    fn xen_volumes_of_amazon_are_known_by_the_machine() {
        let root = machine("Xen", "xvda", &[]);
        fs::write(root.path().join("sys/class/dmi/id/bios_version"), "4.11.amazon\n").unwrap();
        assert_eq!(storage(root.path(), Some(NUMBER)).kind, Kind::Ebs);
    }

    #[test]
    fn a_volume_is_named_as_its_cloud_names_it() {
        let files = [("device/model", EBS_MODEL), ("device/serial", "vol0123456789abcdef0\n")];
        let root = machine("Amazon EC2", "nvme0n1", &files);
        let found = storage(root.path(), Some(NUMBER));
        assert_eq!(found.volume_id.as_deref(), Some("vol-0123456789abcdef0"));
        assert_eq!(volume_id("vol-0"), "vol-0");
        let image = storage(Path::new("/nonexistent"), None);
        assert_eq!((image.kind, image.machine), (Kind::Image, None));
    }
}
