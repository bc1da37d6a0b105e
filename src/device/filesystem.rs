//! The UUID of a filesystem, from its superblock. Pure: bytes come through a function.

/// Bytes that hold the superblocks of ext and XFS and the header of LUKS.
const HEAD_BYTES: usize = 4096;
/// Where the superblock of btrfs lies.
const BTRFS_OFFSET: u64 = 64 << 10;

/// The UUID as text, `None` where no known filesystem is found. `read` gives up to that many bytes at an offset.
pub fn uuid(read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<String> {
    let head = read(0, HEAD_BYTES)?;
    of_head(&head).or_else(|| of_btrfs(&read(BTRFS_OFFSET, HEAD_BYTES)?))
}

fn of_head(head: &[u8]) -> Option<String> {
    if head.get(1080..1082)? == [0x53, 0xef] {
        return text(head.get(1128..1144)?);
    }
    if head.get(..4)? == b"XFSB" {
        return text(head.get(32..48)?);
    }
    if head.get(..6)? == b"LUKS\xba\xbe" {
        let field = head.get(168..208)?;
        let end = field.iter().position(|byte| *byte == 0)?;
        let uuid = std::str::from_utf8(&field[..end]).ok()?;
        return (!uuid.is_empty() && uuid.is_ascii()).then(|| uuid.to_ascii_lowercase());
    }
    None
}

fn of_btrfs(superblock: &[u8]) -> Option<String> {
    (superblock.get(64..72)? == b"_BHRfS_M").then(|| text(&superblock[32..48])).flatten()
}

/// Bytes in the order in which they are written; all zero is no UUID.
fn text(bytes: &[u8]) -> Option<String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_superblock_is_found_where_it_lies() {
        let mut ext = vec![0u8; 4096];
        ext[1080..1082].copy_from_slice(&[0x53, 0xef]);
        ext[1128..1144].copy_from_slice(&(1..=16).collect::<Vec<u8>>());
        let expected = Some("01020304-0506-0708-090a-0b0c0d0e0f10".to_string());
        assert_eq!(uuid(|offset, _| (offset == 0).then(|| ext.clone())), expected);

        let mut xfs = vec![0u8; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[32..48].copy_from_slice(&(1..=16).collect::<Vec<u8>>());
        assert_eq!(uuid(|_, _| Some(xfs.clone())), expected);

        let mut btrfs = vec![0u8; 4096];
        btrfs[64..72].copy_from_slice(b"_BHRfS_M");
        btrfs[32..48].copy_from_slice(&(1..=16).collect::<Vec<u8>>());
        let read = |offset, _| Some(if offset == BTRFS_OFFSET { btrfs.clone() } else { vec![0; 4096] });
        assert_eq!(uuid(read), expected);
    }

    #[test]
    fn short_or_foreign_bytes_have_none() {
        for length in [0, 3, 1081, 1130, 4096] {
            assert_eq!(uuid(|_, _| Some(vec![0x53; length])), None);
        }
    }
}
