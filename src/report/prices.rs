//! What the alternatives to warming cost. Each figure with where it is from; none of it was measured here.

/// Hours of the month of 30 days that prices are told for.
const MONTH_HOURS: f64 = 24.0 * 30.0;
/// Fast Snapshot Restore: $0.75 per snapshot, zone and hour (vendor documentation).
pub const FAST_SNAPSHOT_RESTORE_PER_MONTH_USD: f64 = 0.75 * MONTH_HOURS;
/// Provisioned rate for volume initialization at 300 MiB/s, for each volume made (vendor documentation, third parties).
pub const PROVISIONED_RATE_PER_GIB_USD: f64 = 0.0036;
/// That rate, in bytes a second.
#[cfg(feature = "report")]
const PROVISIONED_RATE: f64 = 300.0 * 1024.0 * 1024.0;
/// `fio` and `dd` as documented: bytes a second as third parties saw them, least and most.
#[cfg(feature = "report")]
const FIO_RATES: (f64, f64) = (25e6, 40e6);
#[cfg(feature = "report")]
const DD_RATES: (f64, f64) = (5e6, 17e6);

/// One provisioned rate for a volume of so many bytes, in US dollars.
pub fn provisioned_rate_usd(volume_bytes: u64) -> f64 {
    PROVISIONED_RATE_PER_GIB_USD * volume_bytes as f64 / (1u64 << 30) as f64
}

/// Another way to have a warm volume.
#[cfg(feature = "report")]
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    pub name: &'static str,
    /// In US dollars.
    pub usd: f64,
    /// What that pays for.
    pub per: &'static str,
    /// Seconds until all of this volume is warm, least and most, by the rates that its source tells; `None` where it is
    /// warm from the start.
    pub takes_s: Option<(f64, f64)>,
    pub remark: &'static str,
    pub source: &'static str,
}

/// The other ways, for a volume of so many bytes.
#[cfg(feature = "report")]
pub fn alternatives(volume_bytes: u64) -> Vec<Alternative> {
    let takes = |(least, most): (f64, f64)| Some((volume_bytes as f64 / most, volume_bytes as f64 / least));
    vec![
        Alternative {
            name: "Fast Snapshot Restore",
            usd: FAST_SNAPSHOT_RESTORE_PER_MONTH_USD,
            per: "a month, for each snapshot and zone",
            takes_s: None,
            remark: "at most 10 volumes an hour and zone at full speed",
            source: "vendor documentation: $0.75 an hour",
        },
        Alternative {
            name: "Provisioned rate for volume initialization",
            usd: provisioned_rate_usd(volume_bytes),
            per: "for each volume made, even if it is deleted early",
            takes_s: takes((PROVISIONED_RATE, PROVISIONED_RATE)),
            remark: "at 300 MiB/s; 5,000 MiB/s a region",
            source: "vendor documentation and third parties: about $0.0036 a GiB",
        },
        Alternative {
            name: "fio as documented, by hand",
            usd: 0.0,
            per: "but for the time",
            takes_s: takes(FIO_RATES),
            remark: "reads every byte of the volume",
            source: "third parties saw 25 to 40 MB/s",
        },
        Alternative {
            name: "dd as documented, by hand",
            usd: 0.0,
            per: "but for the time",
            takes_s: takes(DD_RATES),
            remark: "reads every byte of the volume, one read at a time",
            source: "third parties saw 5 to 17 MB/s",
        },
    ]
}

#[cfg(all(test, feature = "report"))]
mod tests {
    use super::*;

    #[test]
    fn prices_are_those_of_the_sources() {
        let all = alternatives(500 << 30);
        assert_eq!(all[0].usd, 540.0);
        assert!((all[1].usd - 1.8).abs() < 1e-9, "500 GiB at $0.0036");
        let minutes = |range: Option<(f64, f64)>| range.map(|(least, most)| (least / 60.0, most / 60.0));
        let (least, most) = minutes(all[1].takes_s).unwrap();
        assert!(least == most && (28.0..29.0).contains(&least), "{least}");
        let (least, most) = minutes(all[2].takes_s).unwrap();
        assert!((223.0..225.0).contains(&least) && (357.0..359.0).contains(&most), "{least} to {most}");
    }
}
