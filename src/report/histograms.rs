//! Latencies as a log that HdrHistogram's tools read: one line each, told apart by their tags.

use crate::units::NS_PER_S;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::io;
use std::time::{Duration, SystemTime};

/// Latencies in microseconds, and what they are of.
#[derive(Clone, Debug)]
pub struct Named {
    /// A name without blanks and commas.
    pub name: String,
    /// How long it took to collect them.
    pub elapsed_ns: u64,
    pub histogram: Histogram<u64>,
}

/// The log's bytes. In it latencies are in nanoseconds, as the tools expect them, and their maxima in milliseconds.
pub fn histogram_log(all: &[Named], start: SystemTime) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("latencies in nanoseconds, one histogram a tag; written by ebs-prewarm");
    builder.with_start_time(start).with_base_time(start).with_max_value_divisor(1e6);
    let mut log = builder.begin_log_with(&mut bytes, &mut serializer)?;
    for named in all {
        let in_ns = nanoseconds(&named.histogram);
        let took = Duration::from_nanos(named.elapsed_ns);
        log.write_histogram(&in_ns, Duration::ZERO, took, Tag::new(&named.name))
            .map_err(|error| io::Error::other(format!("{}: {error:?}", named.name)))?;
    }
    Ok(bytes)
}

fn nanoseconds(in_us: &Histogram<u64>) -> Histogram<u64> {
    let mut in_ns = Histogram::new_with_bounds(1, 600 * NS_PER_S, 3).expect("the bounds are sound");
    for value in in_us.iter_recorded() {
        in_ns.saturating_record_n(value.value_iterated_to() * 1000, value.count_at_value());
    }
    in_ns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::histogram_us;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn what_is_logged_is_read_back() {
        let first = histogram_us([35_000_000, 36_000_000, 7_000_000_000]);
        let second = histogram_us((0..1000).map(|n| 700_000 + n * 100));
        let named = |name: &str, histogram: &Histogram<u64>| Named {
            name: name.into(),
            elapsed_ns: 2_500_000_000,
            histogram: histogram.clone(),
        };
        let all = [named("touch@64", &first), named("documented-fio", &second)];
        let log = histogram_log(&all, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        let text = String::from_utf8(log.clone()).unwrap();
        assert!(
            text.contains("Tag=touch@64,0.000,2.500,") && text.contains("[BaseTime: 1700000000"),
            "{text}"
        );
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let encoded = base64(interval.encoded_histogram());
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut std::io::Cursor::new(encoded)).unwrap();
                found.push((interval.tag().unwrap().as_str().to_string(), histogram));
            }
        }
        assert_eq!(found.len(), 2);
        for ((tag, back), named) in found.iter().zip(&all) {
            assert_eq!((tag, back.len()), (&named.name, named.histogram.len()));
            for quantile in [0.5, 0.99, 1.0] {
                let (us, ns) =
                    (named.histogram.value_at_quantile(quantile), back.value_at_quantile(quantile));
                assert!((ns as f64 / us as f64 / 1000.0 - 1.0).abs() < 2e-3, "{us} us, {ns} ns");
            }
        }
    }

    /// The standard alphabet (RFC 4648), without a crate for it.
    fn base64(text: &str) -> Vec<u8> {
        let digit = |c: u8| match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let kept: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(digit).collect();
        let mut bytes = Vec::new();
        for group in kept.chunks(4) {
            let number =
                group.iter().enumerate().fold(0u32, |sum, (at, d)| sum | u32::from(*d) << (18 - 6 * at));
            bytes.extend_from_slice(&number.to_be_bytes()[1..group.len()]);
        }
        bytes
    }
}
