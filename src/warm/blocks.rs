//! The blocks that a snapshot holds, as `aws ebs list-snapshot-blocks` prints them: what can be cold at all. Pure.

use crate::error::{Context, Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::units::SECTOR_BYTES;
use serde::Deserialize;

/// Blocks of 512 KiB in a volume of 64 TiB, the largest there is.
const BLOCKS_MAX: usize = 1 << 27;

/// The parts of the answer that matter (EBS direct APIs, ListSnapshotBlocks); others are passed over.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Blocks")]
    blocks: Vec<Block>,
    #[serde(rename = "BlockSize")]
    block_bytes: u64,
    #[serde(rename = "NextToken")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "BlockIndex")]
    index: u64,
}

/// Where the blocks lie on the volume.
pub fn parse(bytes: &[u8]) -> Result<ExtentSet> {
    let fail = |what: &str| Error::failed(format!("failed to parse the list of snapshot blocks: {what}"));
    let answer: Answer = serde_json::from_slice(bytes)
        .context(|| "failed to parse the list of snapshot blocks".into())
        .map_err(|error| {
            error.hint("save what `aws ebs list-snapshot-blocks --snapshot-id ID` prints, as JSON")
        })?;
    if answer.next.is_some() {
        return Err(
            fail("it is one page of several").hint("let the command print all pages: without --no-paginate")
        );
    }
    if answer.blocks.len() > BLOCKS_MAX {
        return Err(fail(&format!("it has {} blocks, the limit is {BLOCKS_MAX}", answer.blocks.len())));
    }
    let sectors = answer.block_bytes / SECTOR_BYTES;
    if sectors == 0 || !answer.block_bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(fail(&format!("blocks of {} bytes are none", answer.block_bytes)));
    }
    let mut set = ExtentSet::new();
    for Block { index } in answer.blocks {
        let extent = index.checked_mul(sectors).and_then(|start| Extent::at(start, sectors));
        set.insert(extent.ok_or_else(|| fail(&format!("block {index} is beyond any volume")))?);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_extents() {
        let text = r#"{"Blocks":[{"BlockIndex":2,"BlockToken":"AAAB"},{"BlockIndex":3,"BlockToken":"AAAC"},
            {"BlockIndex":9,"BlockToken":"x"}],"ExpiryTime":"2026-01-01T00:00:00+00:00","VolumeSize":8,"BlockSize":524288}"#;
        let set = parse(text.as_bytes()).unwrap();
        let extents: Vec<(u64, u64)> = set.iter().map(|extent| (extent.start(), extent.end())).collect();
        assert_eq!(extents, [(2048, 4096), (9216, 10_240)]);
    }

    #[test]
    fn what_is_no_list_is_refused_with_a_remedy() {
        let text = |bytes: &str| parse(bytes.as_bytes()).unwrap_err().full_text();
        assert!(text("").contains("list-snapshot-blocks"));
        assert!(text("[]").contains("list-snapshot-blocks"));
        assert!(text(r#"{"Blocks":[],"BlockSize":0}"#).contains("0 bytes"));
        assert!(text(r#"{"Blocks":[],"BlockSize":100}"#).contains("100 bytes"));
        assert!(text(r#"{"Blocks":[],"BlockSize":524288,"NextToken":"x"}"#).contains("several"));
        assert!(
            text(r#"{"Blocks":[{"BlockIndex":99999999999999999}],"BlockSize":524288}"#).contains("beyond")
        );
        assert!(parse(br#"{"Blocks":[],"BlockSize":524288}"#).unwrap().is_empty());
    }
}
