//! What an NVMe controller says of itself, and what EBS counts on its side of the wire, from bytes.
//!
//! Holds: any bytes give an answer or an error, never a panic; both commands only read. Not here: the ioctl that
//! fetches the bytes.
//!
//! Sources: NVM Express Base Specification, "Identify Controller data structure" (offsets 0, 4, 24); the vendor's own
//! reader, `ebsnvme` of amazon-ec2-utils, and the `amzn` plugin of nvme-cli, which agree on the name that a volume
//! was attached under (offset 3072 of the same structure) and on log page 0xD0.

use super::ioctl::nvme_admin;
use crate::error::{Error, Result};
use std::fs::File;
use std::io;

/// Both answers are a page.
pub const PAGE_BYTES: usize = 4096;
/// Amazon's PCI vendor id.
const AMAZON: u16 = 0x1d0f;
/// The model that EBS volumes have.
pub const EBS_MODEL: &str = "Amazon Elastic Block Store";
/// Admin commands (specification, "Opcodes for Admin Commands").
const GET_LOG_PAGE: u8 = 0x02;
const IDENTIFY: u8 = 0x06;
/// What to identify: the controller.
const CNS_CONTROLLER: u32 = 1;
/// The log page with EBS' statistics.
const LOG_PAGE: u32 = 0xd0;
/// Its first four bytes.
const MAGIC: u32 = 0x3c23_b510;
/// Histograms have room for so many bins.
const BINS_MAX: u64 = 64;

/// A controller, as it identifies itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controller {
    /// PCI vendor id.
    pub vendor_id: u16,
    /// On EBS the volume id, without its dash.
    pub serial: String,
    pub model: String,
    /// On EBS the name that the volume was attached under, such as `/dev/xvdf`; `sda1` where it was attached at the
    /// instance's launch.
    pub attached_as: Option<String>,
}

impl Controller {
    /// Whether it is an EBS volume.
    pub fn is_ebs(&self) -> bool {
        self.vendor_id == AMAZON && self.model == EBS_MODEL
    }
}

/// A bin of a histogram of latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    pub lower_us: u64,
    pub upper_us: u64,
    pub count: u32,
}

/// What EBS counts for a volume since it was attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub read_operations: u64,
    pub write_operations: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    /// Spent in all reads together, in microseconds.
    pub read_us: u64,
    pub write_us: u64,
    /// Time in which more was asked for than the volume may do, in microseconds.
    pub volume_iops_exceeded_us: u64,
    pub volume_throughput_exceeded_us: u64,
    /// Time in which more was asked for than the instance may do with EBS, in microseconds.
    pub instance_iops_exceeded_us: u64,
    pub instance_throughput_exceeded_us: u64,
    /// Operations that wait, now.
    pub queue_length: u64,
    pub read_latency: Vec<Bin>,
    pub write_latency: Vec<Bin>,
}

impl Statistics {
    /// The time exceeded since an earlier look: volume IOPS and throughput, instance IOPS and throughput, in
    /// microseconds. Counters that went back, as after a new attachment, count from zero.
    pub fn exceeded_us_since(&self, before: &Statistics) -> [u64; 4] {
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        [
            since(self.volume_iops_exceeded_us, before.volume_iops_exceeded_us),
            since(self.volume_throughput_exceeded_us, before.volume_throughput_exceeded_us),
            since(self.instance_iops_exceeded_us, before.instance_iops_exceeded_us),
            since(self.instance_throughput_exceeded_us, before.instance_throughput_exceeded_us),
        ]
    }
}

fn le<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    le(bytes, at).map(u64::from_le_bytes)
}

/// Text as NVMe pads it, with blanks or zeros; what is no printable ASCII ends it.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| !(b' '..=b'~').contains(byte)).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).trim().into()
}

/// A controller from its identify data.
pub fn controller(page: &[u8]) -> Option<Controller> {
    let attached_as = text(page.get(3072..3104)?);
    Some(Controller {
        vendor_id: u16::from_le_bytes(le(page, 0)?),
        serial: text(page.get(4..24)?),
        model: text(page.get(24..64)?),
        attached_as: (!attached_as.is_empty()).then_some(attached_as),
    })
}

fn bins(page: &[u8], at: usize) -> Option<Vec<Bin>> {
    let count = le64(page, at)?.min(BINS_MAX) as usize;
    let bin = |number: usize| {
        let at = at + 8 + 24 * number;
        Some(Bin {
            lower_us: le64(page, at)?,
            upper_us: le64(page, at + 8)?,
            count: u32::from_le_bytes(le(page, at + 16)?),
        })
    };
    (0..count).map(bin).collect()
}

/// EBS' statistics from the bytes of log page 0xD0; `None` where it is another vendor's page.
pub fn statistics(page: &[u8]) -> Option<Statistics> {
    if u32::from_le_bytes(le(page, 0)?) != MAGIC {
        return None;
    }
    let number = |index: usize| le64(page, 8 + 8 * index);
    Some(Statistics {
        read_operations: number(0)?,
        write_operations: number(1)?,
        read_bytes: number(2)?,
        write_bytes: number(3)?,
        read_us: number(4)?,
        write_us: number(5)?,
        volume_iops_exceeded_us: number(6)?,
        volume_throughput_exceeded_us: number(7)?,
        instance_iops_exceeded_us: number(8)?,
        instance_throughput_exceeded_us: number(9)?,
        queue_length: number(10)?,
        read_latency: bins(page, 512)?,
        write_latency: bins(page, 512 + 8 + 24 * BINS_MAX as usize)?,
    })
}

/// Asks a controller what it is.
pub fn identify(file: &File) -> io::Result<Controller> {
    let mut page = vec![0; PAGE_BYTES];
    nvme_admin(file, IDENTIFY, 0, CNS_CONTROLLER, &mut page)?;
    controller(&page).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Asks EBS for its statistics.
pub fn read_statistics(file: &File) -> Result<Statistics> {
    let mut page = vec![0; PAGE_BYTES];
    // Words, less one, in the upper half; the namespace is the volume, which is the first.
    let what = LOG_PAGE | (PAGE_BYTES as u32 / 4 - 1) << 16;
    nvme_admin(file, GET_LOG_PAGE, 1, what, &mut page)
        .map_err(|error| Error::failed("failed to read log page 0xD0").because(error))?;
    statistics(&page).ok_or_else(|| Error::failed("failed to read log page 0xD0: it is not that of EBS"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Identify data as EBS gives it, built from the documented layout.
    fn identify_page() -> Vec<u8> {
        let mut page = vec![0u8; PAGE_BYTES];
        page[..2].copy_from_slice(&AMAZON.to_le_bytes());
        page[4..24].copy_from_slice(b"vol0123456789abcdef0");
        page[24..64].copy_from_slice(format!("{EBS_MODEL:<40}").as_bytes());
        page[3072..3104].copy_from_slice(format!("{:<32}", "/dev/xvdf").as_bytes());
        page
    }

    /// Log page 0xD0, built from the documented layout: counters from 1 on, two bins of reads, one of writes. No recorded
    /// bytes of this page were found published: the vendor's documentation and issues of nvme-cli show what tools print
    /// of it, and the tests of other readers of it (the vendor's CSI driver and CloudWatch agent, a collector proposed for
    /// node_exporter) build theirs from the layout as well.
    fn log_page() -> Vec<u8> {
        let mut page = vec![0u8; PAGE_BYTES];
        page[..4].copy_from_slice(&MAGIC.to_le_bytes());
        for index in 0..11usize {
            page[8 + 8 * index..16 + 8 * index].copy_from_slice(&(index as u64 + 1).to_le_bytes());
        }
        let mut bin = |at: usize, lower: u64, upper: u64, count: u32| {
            page[at..at + 8].copy_from_slice(&lower.to_le_bytes());
            page[at + 8..at + 16].copy_from_slice(&upper.to_le_bytes());
            page[at + 16..at + 20].copy_from_slice(&count.to_le_bytes());
        };
        bin(520, 0, 256, 7);
        bin(544, 256, 512, 9);
        bin(2064, 0, 256, 5);
        page[512] = 2;
        page[2056] = 1;
        page
    }

    #[test]
    fn a_volume_says_its_id_and_the_name_it_was_attached_under() {
        let found = controller(&identify_page()).unwrap();
        assert!(found.is_ebs());
        assert_eq!(found.serial, "vol0123456789abcdef0");
        assert_eq!(found.attached_as.as_deref(), Some("/dev/xvdf"));
        assert_eq!(controller(&[0; 3000]), None);
    }

    /// Identify data of QEMU's emulated controller (7.2, `-device nvme,serial=vol0123456789abcdef0`), recorded in a
    /// Linux 6.1 guest through the ioctl: offset and bytes of the rows that are not zero.
    const QEMU: [(usize, &str); 9] = [
        (0x0000, "361bf41a766f6c303132333435363738396162636465663051454d55204e564d"),
        (0x0020, "65204374726c2020202020202020202020202020202020202020202020202020"),
        (0x0040, "372e322e32322020060054520007000000040100000000000000000000010000"),
        (0x0060, "0080000000000000000000000000000100000000000000000000000000000000"),
        (0x0100, "0a01030303070000000057017501000000000000000000000000000000000000"),
        (0x0200, "66440000000100005d0100000007000000000000000003000100000000000000"),
        (0x0300, "6e716e2e323031392d30382e6f72672e71656d753a766f6c3031323334353637"),
        (0x0320, "3839616263646566300000000000000000000000000000000000000000000000"),
        (0x0800, "c409000010000000040000000000000000000000000000000000000000000000"),
    ];

    /// Identify data of EBS volumes on EC2, all of it that is the same in both recordings below but zeros: published as
    /// `nvme id-ctrl --raw-binary | hexdump -C`, of firmware 1.0. (The vendor's documentation prints a row as well, whose
    /// bytes name another device than the text beside them.)
    const EBS: [(usize, &str); 6] = [
        (0x0000, "0f1d0f1d"),
        (0x0018, "416d617a6f6e20456c617374696320426c6f636b2053746f7265202020202020"),
        (0x0038, "2020202020202020312e30202020202020a002dc0006"),
        (0x0100, "0000040003000001010000000000000000000000000000000000000000000000"),
        (0x0200, "6644000001000000000000000001000000000000000000000000000000000000"),
        (0x0800, "0100000040420f0040420f000000000000000000000000000000000000000000"),
    ];

    #[test]
    fn recorded_volumes_say_their_ids_and_names() {
        // The first was attached to a running instance (README.md of oogali/ebs-automatic-nvme-mapping, which masks the
        // volume's id by the digit 2; so does this), the second at the launch, which leaves `/dev/` out (README.md of
        // bajrang0789/ebs-automatic-nvme-mapping).
        let recorded = [
            (
                (0x0004, "766f6c3232323232323232323232323232323232"),
                (0x0c00, "2f6465762f787664742020202020202020202020202020202020202020202020"),
                ("vol22222222222222222", "/dev/xvdt"),
            ),
            (
                (0x0004, "766f6c3039623161366663373465326631383535"),
                (0x0c00, "7364613120202020202020202020202020202020202020202020202020202020"),
                ("vol09b1a6fc74e2f1855", "sda1"),
            ),
        ];
        for (serial, name, (volume_id, attached_as)) in recorded {
            let page = page_of(&[&EBS[..], &[serial, name]].concat());
            let found = controller(&page).unwrap();
            assert!(found.is_ebs(), "{found:?}");
            assert_eq!((found.serial.as_str(), found.attached_as.as_deref()), (volume_id, Some(attached_as)));
            assert_eq!(statistics(&page), None);
        }
    }

    /// A page of zeros but for these rows.
    fn page_of(rows: &[(usize, &str)]) -> Vec<u8> {
        let mut page = vec![0u8; PAGE_BYTES];
        for (at, row) in rows {
            for (number, byte) in row.as_bytes().chunks(2).enumerate() {
                let digits = std::str::from_utf8(byte).unwrap();
                page[at + number] = u8::from_str_radix(digits, 16).unwrap();
            }
        }
        page
    }

    #[test]
    fn a_controller_of_another_maker_is_none_of_ebs() {
        let page = page_of(&QEMU);
        let found = controller(&page).unwrap();
        assert_eq!((found.vendor_id, found.model.as_str()), (0x1b36, "QEMU NVMe Ctrl"));
        assert_eq!((found.serial.as_str(), found.attached_as.clone()), ("vol0123456789abcdef0", None));
        assert!(!found.is_ebs());
    }

    #[test]
    fn every_counter_is_read_where_it_lies() {
        let found = statistics(&log_page()).unwrap();
        let numbers = [
            found.read_operations,
            found.write_operations,
            found.read_bytes,
            found.write_bytes,
            found.read_us,
            found.write_us,
            found.volume_iops_exceeded_us,
            found.volume_throughput_exceeded_us,
            found.instance_iops_exceeded_us,
            found.instance_throughput_exceeded_us,
            found.queue_length,
        ];
        assert_eq!(numbers.to_vec(), (1..=11).collect::<Vec<u64>>());
        let second = Bin { lower_us: 256, upper_us: 512, count: 9 };
        assert_eq!((found.read_latency.len(), found.read_latency[1]), (2, second));
        assert_eq!(found.write_latency, [Bin { lower_us: 0, upper_us: 256, count: 5 }]);
        assert_eq!(statistics(&identify_page()), None);
        assert_eq!(statistics(&log_page()[..600]), None);
    }

    #[test]
    fn what_was_exceeded_meanwhile_is_the_difference() {
        let before = statistics(&log_page()).unwrap();
        let now = Statistics {
            volume_iops_exceeded_us: 1007,
            instance_throughput_exceeded_us: 60,
            instance_iops_exceeded_us: 3,
            ..before.clone()
        };
        assert_eq!(now.exceeded_us_since(&before), [1000, 0, 3, 50]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut page in prop::collection::vec(any::<u8>(), 0..5000), magic in any::<bool>()) {
            if magic && page.len() > 4 {
                page[..4].copy_from_slice(&MAGIC.to_le_bytes());
            }
            let _ = (statistics(&page), controller(&page));
        }
    }
}
