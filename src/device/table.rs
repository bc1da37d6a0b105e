//! Partition tables from bytes: GPT and the primary partitions of an MBR.
//!
//! Holds: any bytes give a table or none, never a panic. Logical partitions in an extended one are not followed:
//! each would be one more first read, and images for clouds do not have them.

use crate::volume::Partition;

/// What a partition table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Disk GUID or disk signature, lower case.
    pub uuid: String,
    /// Partitions in use, by number.
    pub partitions: Vec<Partition>,
}

/// Entries of a GPT, as every tool writes it (UEFI asks for 16 KiB at least, which is 128).
const GPT_ENTRIES_MAX: usize = 128;

/// Bytes from the start of the disk that hold the whole table.
pub fn head_bytes(block_bytes: u32) -> usize {
    2 * block_bytes as usize + GPT_ENTRIES_MAX * 128
}

/// The table, if the disk starts with one.
pub fn parse(head: &[u8], block_bytes: u32) -> Option<Table> {
    gpt(head, block_bytes).or_else(|| mbr(head))
}

fn le<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn gpt(head: &[u8], block_bytes: u32) -> Option<Table> {
    let block = block_bytes as usize;
    let header = head.get(block..block + 92)?;
    if &header[..8] != b"EFI PART" {
        return None;
    }
    let entries_block = u64::from_le_bytes(le(header, 72)?);
    let count = u32::from_le_bytes(le(header, 80)?) as usize;
    let size = u32::from_le_bytes(le(header, 84)?) as usize;
    if size < 128 || entries_block != 2 {
        return None;
    }
    let sectors_per_block = u64::from(block_bytes / 512);
    let mut partitions = Vec::new();
    for number in 0..count.min(GPT_ENTRIES_MAX) {
        let Some(entry) = head.get(2 * block + number * size..).and_then(|rest| rest.get(..128)) else {
            break;
        };
        let kind: [u8; 16] = le(entry, 0)?;
        let first = u64::from_le_bytes(le(entry, 32)?);
        let last = u64::from_le_bytes(le(entry, 40)?);
        if kind == [0; 16] || last < first {
            continue;
        }
        let start = first.checked_mul(sectors_per_block)?;
        let sectors = (last - first).checked_add(1)?.checked_mul(sectors_per_block)?;
        partitions.push(Partition {
            number: number as u32 + 1,
            start,
            sectors,
            partuuid: Some(guid(le(entry, 16)?)),
            fs_uuid: None,
        });
    }
    Some(Table { uuid: guid(le(header, 56)?), partitions })
}

/// The first three fields of a GUID are little endian.
fn guid(bytes: [u8; 16]) -> String {
    let hex = |order: &[usize]| order.iter().map(|&i| format!("{:02x}", bytes[i])).collect::<String>();
    [hex(&[3, 2, 1, 0]), hex(&[5, 4]), hex(&[7, 6]), hex(&[8, 9]), hex(&[10, 11, 12, 13, 14, 15])].join("-")
}

fn mbr(head: &[u8]) -> Option<Table> {
    if head.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let signature = u32::from_le_bytes(le(head, 440)?);
    let mut partitions = Vec::new();
    for number in 0..4usize {
        let entry = head.get(446 + 16 * number..462 + 16 * number)?;
        let start = u64::from(u32::from_le_bytes(le(entry, 8)?));
        let sectors = u64::from(u32::from_le_bytes(le(entry, 12)?));
        // A boot sector of a filesystem ends like an MBR, but its bytes are no partitions.
        if !matches!(entry[0], 0 | 0x80) {
            return None;
        }
        if entry[4] != 0 && start > 0 && sectors > 0 {
            let partuuid = Some(format!("{signature:08x}-{:02x}", number + 1));
            partitions.push(Partition { number: number as u32 + 1, start, sectors, partuuid, fs_uuid: None });
        }
    }
    (!partitions.is_empty()).then(|| Table { uuid: format!("{signature:08x}"), partitions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gpt_bytes(block: usize) -> Vec<u8> {
        let mut head = vec![0u8; 2 * block + 128 * 128];
        head[block..block + 8].copy_from_slice(b"EFI PART");
        head[block + 56..block + 72].copy_from_slice(&(0..16).collect::<Vec<u8>>());
        head[block + 72] = 2;
        head[block + 80] = 128;
        head[block + 84] = 128;
        let entry = 2 * block + 128;
        head[entry] = 1;
        head[entry + 16..entry + 32].copy_from_slice(&(16..32).collect::<Vec<u8>>());
        head[entry + 32..entry + 40].copy_from_slice(&256u64.to_le_bytes());
        head[entry + 40..entry + 48].copy_from_slice(&511u64.to_le_bytes());
        head
    }

    #[test]
    fn a_gpt_is_read_with_either_block_size() {
        for block in [512u32, 4096] {
            let table = parse(&gpt_bytes(block as usize), block).unwrap();
            assert_eq!(table.uuid, "03020100-0504-0706-0809-0a0b0c0d0e0f");
            let scale = u64::from(block / 512);
            let partition = &table.partitions[0];
            assert_eq!((partition.number, partition.start, partition.sectors), (2, 256 * scale, 256 * scale));
            assert_eq!(partition.partuuid.as_deref(), Some("13121110-1514-1716-1819-1a1b1c1d1e1f"));
        }
    }

    #[test]
    fn an_mbr_has_signature_and_number() {
        let mut head = vec![0u8; 512];
        head[440..444].copy_from_slice(&0xdead_beefu32.to_le_bytes());
        head[446 + 4] = 0x83;
        head[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
        head[446 + 12..446 + 16].copy_from_slice(&4096u32.to_le_bytes());
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        let table = parse(&head, 512).unwrap();
        assert_eq!(table.partitions[0].partuuid.as_deref(), Some("deadbeef-01"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut head in prop::collection::vec(any::<u8>(), 0..2000), magic in any::<bool>()) {
            if magic && head.len() > 1100 {
                head[512..520].copy_from_slice(b"EFI PART");
                head[584..592].copy_from_slice(&2u64.to_le_bytes());
            }
            let _ = parse(&head, 512);
        }
    }
}
