//! The parameters of a cold volume, by name, and how they are overridden.
//!
//! Every number of the named models is a line of the table "Models of a cold volume" in the design facts
//! (vendor documentation and third-party measurements; see ARCHITECTURE.md).

use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::units::{ByteSize, NS_PER_S, Rate, SECTOR_BYTES, as_ns, parse_duration};
use std::collections::BTreeSet;

/// One I/O of EBS is at most this long; a longer request counts as several (vendor documentation).
pub const IO_BYTES_MAX: u64 = 256 << 10;

/// How a cold volume behaves. Times in nanoseconds, rates in bytes a second; 0 means no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name, for reports.
    pub name: String,
    /// What is hydrated at once.
    pub unit_bytes: u64,
    /// Median of the lognormal first-read latency.
    pub first_read_ns: u64,
    /// Sigma of the lognormal.
    pub sigma: f64,
    /// Fetches at once.
    pub fetches: u32,
    /// Hydration rate.
    pub hydration_bytes_per_s: u64,
    /// Operations a second of the volume.
    pub iops: u64,
    /// Throughput of the volume.
    pub throughput_bytes_per_s: u64,
    /// Latency of a read of warm units.
    pub warm_ns: u64,
    /// Sigma of the warm latency.
    pub warm_sigma: f64,
    /// Whether the units of one read are fetched all at once (true) or in order, one after the other.
    ///
    /// In order is the default: one request at a time with 1 MiB was measured at 5 to 17 MB/s, and two units
    /// of 512 KiB at once would give 19 MB/s at 35 ms, in order 12 MB/s.
    pub span_parallel: bool,
    /// What goes wrong.
    pub faults: Faults,
}

/// Faults on top of a model; all off by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Units whose reads fail with EIO, after the latency of a fetch.
    pub eio_units: BTreeSet<u64>,
    /// Sectors whose reads fail with EIO.
    pub eio_sectors: ExtentSet,
    /// Share of fetches with a latency from the tail.
    pub tail_share: f64,
    /// Shortest and longest latency of the tail.
    pub tail_ns: (u64, u64),
    /// The fetch with this number (from 0) stalls.
    pub stall_fetch: Option<u64>,
    /// For so long.
    pub stall_ns: u64,
    /// Each `vary_period_ns` the hydration rate is multiplied by a factor drawn from here.
    pub vary: Option<(f64, f64)>,
    /// How long one factor holds.
    pub vary_period_ns: u64,
    /// Share of units, drawn by the seed, that the snapshot does not hold: they answer at warm latency.
    pub unallocated_share: f64,
    /// Share of units, drawn by the seed, that are warm from the start.
    pub warm_share: f64,
}

/// name, unit, median ms, fetches, hydration bytes/s, iops, throughput bytes/s, warm us
type Row = (&'static str, u64, u64, u32, u64, u64, u64, u64);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TABLE: [Row; 6] = [
    ("gp3", 512 * KIB, 35, 64, 140_000_000, 3_000, 125 * MIB, 700),
    ("io2", 512 * KIB, 35, 256, 1_000_000_000, 64_000, 1_000 * MIB, 400),
    ("slow", 512 * KIB, 100, 64, 140_000_000, 3_000, 125 * MIB, 700),
    ("fine", 128 * KIB, 35, 64, 140_000_000, 3_000, 125 * MIB, 700),
    ("scarce", 512 * KIB, 35, 64, 10_000_000, 3_000, 125 * MIB, 700),
    ("coarse", 2 * MIB, 50, 64, 200_000_000, 3_000, 125 * MIB, 700),
];

impl Model {
    /// The names that [`Model::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|row| row.0)
    }

    /// A model of the table, without faults.
    pub fn named(name: &str) -> Result<Model> {
        let row = TABLE.iter().find(|row| row.0 == name).ok_or_else(|| {
            let known: Vec<_> = Self::names().collect();
            Error::usage(format!("failed to find model `{name}`"))
                .hint(format!("known models: {}; or the path of a YAML file", known.join(", ")))
        })?;
        let &(name, unit_bytes, median_ms, fetches, hydration, iops, throughput, warm_us) = row;
        Ok(Model {
            name: name.into(),
            unit_bytes,
            first_read_ns: median_ms * 1_000_000,
            sigma: 0.6,
            fetches,
            hydration_bytes_per_s: hydration,
            iops,
            throughput_bytes_per_s: throughput,
            warm_ns: warm_us * 1_000,
            warm_sigma: 0.1,
            span_parallel: false,
            faults: Faults { vary_period_ns: NS_PER_S, stall_ns: 60 * NS_PER_S, ..Faults::default() },
        })
    }

    /// Sectors in a unit.
    pub fn unit_sectors(&self) -> u64 {
        self.unit_bytes / SECTOR_BYTES
    }

    /// Overrides one parameter; `--set key=value` and a model's YAML file both end here.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let size = |text: &str| text.parse::<ByteSize>().map(|size| size.0);
        let rate = |text: &str| text.parse::<Rate>().map(|rate| rate.0);
        // Nothing needs no unit.
        let time = |text: &str| if text == "0" { Ok(0) } else { parse_duration(text).map(as_ns) };
        match key {
            "name" => self.name = value.into(),
            "unit" => self.unit_bytes = size(value)?,
            "first_read" => self.first_read_ns = time(value)?,
            "sigma" => self.sigma = number(value, 0.0, 3.0)?,
            "fetches" => self.fetches = number(value, 1.0, 65_536.0)? as u32,
            "hydration" => self.hydration_bytes_per_s = rate(value)?,
            "iops" => self.iops = number(value, 0.0, 1e9)? as u64,
            "throughput" => self.throughput_bytes_per_s = rate(value)?,
            "warm" => self.warm_ns = time(value)?,
            "warm_sigma" => self.warm_sigma = number(value, 0.0, 3.0)?,
            "span_parallel" => {
                self.span_parallel = value
                    .parse()
                    .map_err(|_| Error::usage(format!("failed to parse `{value}` as true or false")))?;
            }
            "eio_units" => self.faults.eio_units = list(value, whole)?.into_iter().collect(),
            "eio_sectors" => self.faults.eio_sectors = list(value, sector_range)?.into_iter().collect(),
            "tail" => self.faults.tail_share = number(value, 0.0, 1.0)?,
            "tail_range" => {
                let (low, high) = range(value)?;
                self.faults.tail_ns = (time(low)?, time(high)?);
            }
            "stall_fetch" => self.faults.stall_fetch = Some(whole(value)?),
            "stall" => self.faults.stall_ns = time(value)?,
            "vary" => {
                let (low, high) = range(value)?;
                self.faults.vary = Some((number(low, 0.01, 100.0)?, number(high, 0.01, 100.0)?));
            }
            "vary_period" => self.faults.vary_period_ns = time(value)?.max(1_000_000),
            "unallocated" => self.faults.unallocated_share = number(value, 0.0, 1.0)?,
            "warm_units" => self.faults.warm_share = number(value, 0.0, 1.0)?,
            _ => {
                return Err(Error::usage(format!("failed to set unknown parameter `{key}`"))
                    .hint(format!("known parameters: {KEYS}")));
            }
        }
        self.check()
    }

    fn check(&self) -> Result<()> {
        if !self.unit_bytes.is_power_of_two() || !(4096..=64 * MIB).contains(&self.unit_bytes) {
            return Err(Error::usage(format!("failed to accept unit of {} bytes", self.unit_bytes))
                .hint("a unit is a power of two from 4KiB to 64MiB"));
        }
        let (low, high) = self.faults.tail_ns;
        let falling = self.faults.vary.is_some_and(|(low, high)| low > high);
        if low > high || falling {
            return Err(Error::usage("failed to accept a range whose end is below its start"));
        }
        Ok(())
    }

    /// Adds what a model's YAML file says; `model: NAME` in it names the one it starts from.
    #[cfg(feature = "people")]
    pub fn from_yaml(text: &str) -> Result<Model> {
        let map: serde_yaml::Mapping = serde_yaml::from_str(text).map_err(|cause| {
            Error::usage("failed to parse the model's YAML")
                .hint("write `parameter: value` lines, such as `model: gp3` and `unit: 128KiB`")
                .because(cause)
        })?;
        let text_of = |value: &serde_yaml::Value| match value {
            serde_yaml::Value::String(text) => Ok(text.clone()),
            serde_yaml::Value::Number(number) => Ok(number.to_string()),
            serde_yaml::Value::Bool(flag) => Ok(flag.to_string()),
            other => Err(Error::usage(format!("failed to use the value `{other:?}` of a model's parameter"))),
        };
        let base = map.get("model").map(text_of).transpose()?;
        let mut model = Model::named(base.as_deref().unwrap_or("gp3"))?;
        for (key, value) in &map {
            let key = text_of(key)?;
            if key != "model" {
                model.set(&key, &text_of(value)?)?;
            }
        }
        Ok(model)
    }

    /// The law's lower bound for hydrating `units` scattered units, in nanoseconds:
    /// `max(D/I, D*g/B, L*ceil(D/C)) + L` with the median as `L`.
    pub fn bound_ns(&self, units: u64) -> u64 {
        if units == 0 {
            return 0;
        }
        let per_s = |amount: u128, rate: u64| match rate {
            0 => 0,
            rate => amount * u128::from(NS_PER_S) / u128::from(rate),
        };
        let by_iops = per_s(u128::from(units), self.iops);
        let by_rate = per_s(u128::from(units) * u128::from(self.unit_bytes), self.hydration_bytes_per_s);
        let by_latency =
            u128::from(self.first_read_ns) * u128::from(units.div_ceil(u64::from(self.fetches.max(1))));
        let bound = by_iops.max(by_rate).max(by_latency) + u128::from(self.first_read_ns);
        u64::try_from(bound).unwrap_or(u64::MAX)
    }
}

const KEYS: &str = "unit, first_read, sigma, fetches, hydration, iops, throughput, warm, warm_sigma, \
    span_parallel, eio_units, eio_sectors, tail, tail_range, stall_fetch, stall, vary, vary_period, \
    unallocated, warm_units, name";

fn number(text: &str, low: f64, high: f64) -> Result<f64> {
    text.parse::<f64>().ok().filter(|value| (low..=high).contains(value)).ok_or_else(|| {
        Error::usage(format!("failed to parse number `{text}`"))
            .hint(format!("give one from {low} to {high}"))
    })
}

fn whole(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::usage(format!("failed to parse whole number `{text}`")))
}

/// `START+COUNT` in sectors.
fn sector_range(text: &str) -> Result<Extent> {
    text.split_once('+')
        .and_then(|(start, count)| Extent::at(start.parse().ok()?, count.parse().ok()?))
        .ok_or_else(|| {
            Error::usage(format!("failed to parse sector range `{text}`")).hint("write it as START+COUNT")
        })
}

/// `LOW..HIGH`
fn range(text: &str) -> Result<(&str, &str)> {
    text.split_once("..").ok_or_else(|| {
        Error::usage(format!("failed to parse range `{text}`")).hint("write it as LOW..HIGH, such as 1s..7s")
    })
}

fn list<T>(text: &str, one: fn(&str) -> Result<T>) -> Result<Vec<T>> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_model_is_sound() {
        for name in Model::names() {
            Model::named(name).unwrap().check().unwrap();
        }
        assert!(Model::named("gp9").unwrap_err().full_text().contains("gp3, io2"));
    }

    #[test]
    fn parameters_are_set_and_refused() {
        let mut model = Model::named("gp3").unwrap();
        for (key, value) in [
            ("unit", "128KiB"),
            ("hydration", "10MB/s"),
            ("tail", "1e-4"),
            ("tail_range", "1s..7s"),
            ("eio_units", "3, 7"),
            ("eio_sectors", "100+8"),
            ("vary", "0.3..1.5"),
            ("span_parallel", "true"),
            ("warm", "0"),
        ] {
            model.set(key, value).unwrap();
        }
        assert_eq!(model.unit_bytes, 131_072);
        assert!(model.faults.eio_units.contains(&7));
        for (key, value) in
            [("unit", "100KiB"), ("fetches", "0"), ("tail", "2"), ("vary", "2..1"), ("x", "1")]
        {
            assert!(Model::named("gp3").unwrap().set(key, value).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn the_bound_is_that_of_the_facts() {
        // 508 units of 512 KiB: 1.9 s at 140 MB/s.
        let bound = Model::named("gp3").unwrap().bound_ns(508);
        assert!((1_900_000_000..1_960_000_000).contains(&bound), "{bound}");
    }

    #[cfg(feature = "people")]
    #[test]
    fn a_yaml_file_starts_from_a_named_model() {
        let model = Model::from_yaml("model: io2\nunit: 128KiB\nsigma: 0.3\neio_units: 4\n").unwrap();
        assert_eq!((model.unit_bytes, model.fetches, model.sigma), (131_072, 256, 0.3));
        assert!(Model::from_yaml("- a\n").is_err());
        assert!(Model::from_yaml("unit: [1]\n").is_err());
    }
}
