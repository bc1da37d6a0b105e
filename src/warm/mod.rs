//! From a profile and a device to a report: bind, plan, read, verify. What `warm`, `plan` and `demo` call.
//!
//! Holds: a unit that was only touched is called warm when a sample of such units was read again and answered
//! like warm ones; where it did not, `auto` reads every byte.

pub mod blocks;
mod feed;
pub mod find;
mod gate;
mod journal;
mod known;
mod report;
mod run;
pub mod several;
pub mod stamp;
mod warmth;

pub use feed::Control;
pub use report::{ended, refused, verdict};
pub use run::{Hooks, Timed, warm};

use crate::device::Device;
use crate::engine::Progress;
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentSet};
use crate::plan::{Mode, Plan, Shape};
use crate::profile::Profile;
use crate::profile::bind::{looked_up, resolve};
use crate::volume::Identity;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The snapshot API's block (vendor documentation), and so the first guess at the unit of hydration.
pub const UNIT_BYTES: u64 = 512 << 10;
/// How to warm.
#[derive(Clone, Debug)]
pub struct Options {
    /// A block device or an image.
    pub device: PathBuf,
    /// Where `/sys` is found.
    pub root: PathBuf,
    /// `None`: touch, verify, and read every byte where the unit was wrong.
    pub mode: Option<Mode>,
    /// Unit in bytes; `None` for [`UNIT_BYTES`].
    pub unit_bytes: Option<u64>,
    /// Reads in flight; `None` lets it find itself.
    pub depth: Option<u32>,
    /// Reads a second; 0 for no limit.
    pub iops: u64,
    /// Bytes a second; 0 for no limit.
    pub rate: u64,
    /// What is warmed after the stages, and how.
    pub rest: RestOptions,
    /// Counted from the first read, over all that is read.
    pub deadline: Option<Duration>,
    /// Directory of the journal: what was done by an earlier run is not done again.
    pub journal: Option<PathBuf>,
    /// Whether `later` and the rest stand back while the disk has others' requests.
    pub stand_back: bool,
}

/// What is warmed after the stages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    #[default]
    None,
    /// What the mounted filesystems of the disk have allocated, and what no mounted filesystem covers.
    Allocated,
    /// Units that some of these extents lie in: the blocks of a snapshot.
    Within(ExtentSet),
    /// All that no stage has.
    All,
}

/// How the rest is warmed: beside work that goes on for hours.
#[derive(Clone, Debug, Default)]
pub struct RestOptions {
    /// What it is.
    pub what: Rest,
    /// Reads a second; 0 for no limit.
    pub iops: u64,
    /// Bytes a second that are hydrated; 0 for no limit.
    pub hydrated_bytes_per_s: u64,
    /// Bytes that are hydrated at most; 0 for no limit.
    pub budget_bytes: u64,
    /// It begins after a share of this, which each volume draws by what it is called: a fleet that starts together does
    /// not ask the storage together.
    pub jitter: Duration,
    /// Counted from its beginning.
    pub deadline: Option<Duration>,
}

/// A device that was opened and recognised, with the profile's extents on it.
#[derive(Debug)]
pub struct Bound {
    /// Open for reading.
    pub device: Device,
    /// What it was recognised by.
    pub identity: Identity,
    stages: Vec<(String, Vec<Extent>)>,
    profile: String,
    unit_bytes: u64,
    /// What was known of the volume and is used, for people.
    known: Vec<String>,
}

/// Looks on while a volume is warmed.
pub trait Onlooker: Progress {
    /// Called once, when the disk was found and before anything is planned.
    fn found(&mut self, _bound: &Bound) {}
}

/// Nobody looks.
impl Onlooker for () {}

/// Opens the device, checks that the profile is for it and finds its extents.
pub fn bind(options: &Options, profile: Option<&Profile>) -> Result<Bound> {
    let unit_bytes = options.unit_bytes.unwrap_or(UNIT_BYTES);
    if !unit_bytes.is_power_of_two() || !(4096..=64 << 20).contains(&unit_bytes) {
        return Err(Error::usage(format!("failed to use a unit of {unit_bytes} bytes"))
            .hint("a unit is a power of two from 4KiB to 64MiB"));
    }
    let device = Device::open(&options.device)?;
    let (identity, stages) = match profile {
        Some(profile) => {
            let wanted = looked_up(profile);
            let identity = match profile.volume {
                Some(_) => device.identity(&options.root, |partuuid| wanted.contains(&partuuid))?,
                // Nothing to compare: nothing is read.
                None => Identity::of_size(device.sectors()),
            };
            let stages = resolve(profile, &identity)?;
            (identity, stages.into_iter().map(|stage| (stage.name, stage.extents)).collect())
        }
        None => (Identity::of_size(device.sectors()), Vec::new()),
    };
    let profile = profile.map_or_else(String::new, |profile| profile.name.clone());
    Ok(Bound { device, identity, stages, profile, unit_bytes, known: Vec::new() })
}

impl Bound {
    /// The ordered reads of the stages.
    pub fn plan(&self, mode: Mode) -> Plan {
        let shape = Shape {
            sectors: self.device.sectors(),
            block_bytes: self.device.block_bytes(),
            unit_bytes: self.unit_bytes,
            mode,
        };
        let stages = self.stages.iter().map(|(name, extents)| (name.as_str(), extents.as_slice()));
        Plan::new(stages, shape)
    }

    /// The reads of what no stage of a plan has; `None` where it is not asked for. The kernel may read the maps of
    /// filesystems for it; a stop ends that.
    pub fn rest(&self, stages: &Plan, options: &Options, stop: &AtomicBool) -> Result<Option<Plan>> {
        let within = match &options.rest.what {
            Rest::None => return Ok(None),
            Rest::All => None,
            Rest::Within(extents) => Some(extents.clone()),
            Rest::Allocated => Some(self.device.allocated(&options.root, stop)?),
        };
        Ok(Some(stages.rest_alone(within)))
    }
}
