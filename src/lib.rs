//! Records which blocks a boot touches on a lazily hydrated cloud volume, and warms them first on every new node.
//!
//! The rooms, and which may name which, are in ARCHITECTURE.md.

#[cfg(feature = "report")]
pub mod bench;
pub mod codec;
pub mod cold;
pub mod commands;
#[cfg(feature = "control")]
pub mod control;
pub mod device;
pub mod effect;
pub mod engine;
pub mod error;
pub mod extent;
pub mod files;
pub mod findings;
#[cfg(feature = "lab")]
pub mod lab;
pub mod plan;
#[cfg(feature = "report")]
pub mod probe;
pub mod process;
pub mod profile;
pub mod record;
pub mod recording;
pub mod report;
pub mod units;
pub mod volume;
pub mod warm;

pub use error::{Error, Kind, Result};
