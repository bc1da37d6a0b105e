//! The kernel's own descriptions of its trace records (`header_page`, `events/*/*/format`), read into offsets.
//!
//! Holds: no offset is assumed, kernels move them (5.10 has 8 letters of `rwbs`, 6.18 has 10 behind an I/O
//! priority); an offset that a record cannot hold is refused here once. Pure: text in, offsets out.

use crate::error::{Error, Result};

/// Pages of a ring are 4 KiB to 64 KiB by architecture, and at most 2 MiB since sub-buffers can be set (6.8).
pub const PAGE_BYTES_MAX: usize = 2 << 20;
/// Fields of one event; block events have about a dozen.
const FIELDS_MAX: usize = 128;
/// A record is smaller than this: the block events have some sixty bytes.
const RECORD_BYTES_MAX: usize = 4096;

/// Where a value lies in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// From the start of the record, in bytes.
    pub offset: usize,
    /// Length in bytes.
    pub bytes: usize,
}

impl Field {
    /// Its bytes, `None` where the record is shorter.
    pub fn of(self, record: &[u8]) -> Option<&[u8]> {
        record.get(self.offset..self.offset.checked_add(self.bytes)?)
    }

    /// Its value as an unsigned number in the machine's byte order.
    pub fn number(self, record: &[u8]) -> Option<u64> {
        let bytes = self.of(record)?;
        Some(match *bytes {
            [a] => a.into(),
            [a, b] => u16::from_ne_bytes([a, b]).into(),
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
            _ => u64::from_ne_bytes(bytes.try_into().ok()?),
        })
    }
}

/// How a page of the ring begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// Time of the page, in nanoseconds of the trace clock.
    pub timestamp: Field,
    /// Bytes of data in it, with flags for lost events above.
    pub commit: Field,
    /// Where the records begin.
    pub data: usize,
    /// The page with its header: what one read returns.
    pub bytes: usize,
}

/// Where the values of a block event lie; what an event does not have is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLayout {
    /// The number that opens each of its records.
    pub id: u16,
    /// Where that number lies, the same in all events.
    pub common_type: Field,
    /// Thread that was running.
    pub pid: Field,
    /// The whole disk: major number above 20 bits of minor number.
    pub dev: Field,
    /// First sector on the whole disk.
    pub sector: Field,
    /// Length in sectors.
    pub sectors: Field,
    /// Letters that say what the operation was.
    pub rwbs: Field,
    /// Name of the thread; completions have none.
    pub comm: Option<Field>,
}

/// A `field:` line: its name and place.
fn parse_field(line: &str) -> Option<(&str, Field)> {
    let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
    let declaration = parts.next()?;
    let mut field = Field::default();
    let (mut has_offset, mut has_size) = (false, false);
    for part in parts {
        match part.split_once(':') {
            Some(("offset", value)) => (field.offset, has_offset) = (value.trim().parse().ok()?, true),
            Some(("size", value)) => (field.bytes, has_size) = (value.trim().parse().ok()?, true),
            _ => {}
        }
    }
    let name = declaration.split_whitespace().next_back()?.split('[').next()?.trim_start_matches('*');
    (has_offset && has_size && !name.is_empty()).then_some((name, field))
}

/// The fields of a description, in order.
fn parse_fields<'a>(text: &'a str, what: &str) -> Result<Vec<(&'a str, Field)>> {
    let mut fields = Vec::new();
    for line in text.lines().filter(|line| line.trim_start().starts_with("field:")) {
        let field = parse_field(line).ok_or_else(|| {
            Error::failed(format!("failed to parse {what}: line `{}` has no offset or no size", line.trim()))
        })?;
        if fields.len() == FIELDS_MAX {
            return Err(Error::failed(format!("failed to parse {what}: more than {FIELDS_MAX} fields")));
        }
        fields.push(field);
    }
    Ok(fields)
}

fn find(fields: &[(&str, Field)], name: &str, what: &str) -> Result<Field> {
    fields
        .iter()
        .find(|(have, _)| *have == name)
        .map(|(_, field)| *field)
        .ok_or_else(|| Error::failed(format!("failed to parse {what}: it has no field `{name}`")))
}

/// A field that holds a number.
fn find_number(fields: &[(&str, Field)], name: &str, what: &str) -> Result<Field> {
    let field = find(fields, name, what)?;
    if matches!(field.bytes, 1 | 2 | 4 | 8) && field.offset < RECORD_BYTES_MAX {
        return Ok(field);
    }
    Err(Error::failed(format!(
        "failed to parse {what}: field `{name}` has {} bytes at {}",
        field.bytes, field.offset
    )))
}

/// A field that holds letters.
fn find_text(fields: &[(&str, Field)], name: &str, what: &str) -> Result<Field> {
    let field = find(fields, name, what)?;
    if field.bytes <= RECORD_BYTES_MAX && field.offset < RECORD_BYTES_MAX {
        return Ok(field);
    }
    Err(Error::failed(format!("failed to parse {what}: field `{name}` has {} bytes", field.bytes)))
}

impl PageLayout {
    /// From `events/header_page`.
    pub fn parse(text: &str) -> Result<PageLayout> {
        let what = "trace page description `header_page`";
        let fields = parse_fields(text, what)?;
        let timestamp = find_number(&fields, "timestamp", what)?;
        let commit = find_number(&fields, "commit", what)?;
        let data = find(&fields, "data", what)?;
        let bytes = data.offset.saturating_add(data.bytes);
        let header_fits =
            [timestamp, commit].iter().all(|field| field.offset + field.bytes <= data.offset.min(bytes));
        if !header_fits || data.bytes == 0 || bytes > PAGE_BYTES_MAX {
            return Err(Error::failed(format!("failed to parse {what}: pages of {bytes} bytes")));
        }
        Ok(PageLayout { timestamp, commit, data: data.offset, bytes })
    }
}

impl EventLayout {
    /// From the `format` file of a block event; `name` is for the error.
    pub fn parse(text: &str, name: &str) -> Result<EventLayout> {
        let what = format!("trace event description `{name}`");
        let id = text.lines().find_map(|line| line.trim().strip_prefix("ID:")?.trim().parse().ok());
        let id = id.ok_or_else(|| Error::failed(format!("failed to parse {what}: it has no ID")))?;
        let fields = parse_fields(text, &what)?;
        Ok(EventLayout {
            id,
            common_type: find_number(&fields, "common_type", &what)?,
            pid: find_number(&fields, "common_pid", &what)?,
            dev: find_number(&fields, "dev", &what)?,
            sector: find_number(&fields, "sector", &what)?,
            sectors: find_number(&fields, "nr_sector", &what)?,
            rwbs: find_text(&fields, "rwbs", &what)?,
            comm: find_text(&fields, "comm", &what).ok(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the kernels themselves wrote them: `header_page`, then `format` of block_rq_issue and of
    /// block_rq_complete. 5.10, 6.1 and 6.12 are Debian's for the cloud, all on x86-64.
    const KERNELS: [(&str, &str); 4] = [
        ("5.10", include_str!("kernels/5.10.txt")),
        ("6.1", include_str!("kernels/6.1.txt")),
        ("6.12", include_str!("kernels/6.12.txt")),
        ("6.18", include_str!("kernels/6.18.txt")),
    ];

    /// The descriptions that a kernel wrote.
    pub struct Kernel {
        pub name: &'static str,
        pub header_page: &'static str,
        pub issue: &'static str,
        pub complete: &'static str,
    }

    /// All kernels whose descriptions are kept.
    pub fn kernels() -> Vec<Kernel> {
        let split = |(name, text): (&'static str, &'static str)| {
            let (header_page, events) = text.split_at(text.find("name: ").unwrap());
            let (issue, complete) = events.split_at(events.rfind("name: ").unwrap());
            Kernel { name, header_page, issue, complete }
        };
        KERNELS.into_iter().map(split).collect()
    }

    #[test]
    fn each_kernel_says_where_its_fields_are() {
        let places: Vec<_> = kernels()
            .iter()
            .map(|kernel| {
                let issue = EventLayout::parse(kernel.issue, "issue").unwrap();
                let complete = EventLayout::parse(kernel.complete, "complete").unwrap();
                assert!(
                    kernel.issue.contains("block_rq_issue") && kernel.complete.contains("block_rq_complete")
                );
                assert_eq!(complete.comm, None, "{}", kernel.name);
                for layout in [issue, complete] {
                    assert_eq!(layout.dev, Field { offset: 8, bytes: 4 });
                    assert_eq!(layout.sector, Field { offset: 16, bytes: 8 });
                    assert_eq!(layout.sectors, Field { offset: 24, bytes: 4 });
                    assert_eq!(layout.pid, Field { offset: 4, bytes: 4 });
                }
                let ids = (issue.id, complete.id);
                (ids, issue.rwbs.offset, issue.rwbs.bytes, issue.comm.unwrap().offset, complete.rwbs.offset)
            })
            .collect();
        assert_eq!(
            places,
            [
                ((1150, 1152), 32, 8, 40, 32),
                ((1190, 1193), 32, 8, 40, 32),
                ((1304, 1307), 34, 8, 42, 34),
                ((2104, 2107), 34, 10, 44, 34),
            ]
        );
    }

    #[test]
    fn the_page_says_its_size() {
        for kernel in kernels() {
            let page = PageLayout::parse(kernel.header_page).unwrap();
            assert_eq!((page.data, page.bytes), (16, 4096), "{}", kernel.name);
            assert_eq!(page.commit, Field { offset: 8, bytes: 8 });
        }
        let four = kernels()[3].header_page;
        let large = four.replace("4080", "65520");
        assert_eq!(PageLayout::parse(&large).unwrap().bytes, 65536);
        // 32 bits: the commit word has 4 bytes and the data begin at 12.
        let small = four
            .replace("offset:8;\tsize:8", "offset:8;\tsize:4")
            .replace("offset:16;\tsize:4080", "offset:12;\tsize:4084");
        assert_eq!(PageLayout::parse(&small).unwrap().data, 12);
    }

    #[test]
    fn what_is_no_description_is_refused_by_name() {
        let issue = kernels()[0].issue;
        for (bad, why) in [
            (String::new(), "no ID"),
            (issue.replace("ID: 1150", "ID: many"), "no ID"),
            (issue.replace("sector_t sector", "sector_t place"), "no field `sector`"),
            (issue.replace("offset:16;\tsize:8", "offset:16;\tsize:3"), "has 3 bytes"),
            (issue.replace("offset:16;\tsize:8", "size:8"), "no offset or no size"),
        ] {
            let error = EventLayout::parse(&bad, "block_rq_issue").unwrap_err().full_text();
            assert!(error.contains("`block_rq_issue`") && error.contains(why), "{error}");
        }
        let page = kernels()[0].header_page;
        for bad in ["4080", "99999999999", "0"].map(|size| page.replace("4080", size)) {
            let parsed = PageLayout::parse(&bad);
            assert_eq!(parsed.is_ok(), bad == page, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}", cut in 0usize..900, at in 0usize..900, byte in any::<u8>()) {
            let _ = (PageLayout::parse(&text), EventLayout::parse(&text, "any"));
            let mut bytes = kernels()[3].issue.as_bytes().to_vec();
            let place = at % bytes.len();
            bytes[place] = byte & 0x7f;
            bytes.truncate(cut);
            let text = String::from_utf8(bytes).unwrap();
            if let Ok(layout) = EventLayout::parse(&text, "cut") {
                let record = [0u8; 64];
                let _ = (layout.sector.number(&record), layout.rwbs.of(&record));
            }
        }
    }
}
