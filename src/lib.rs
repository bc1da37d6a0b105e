//! Records which blocks a boot touches on a lazily hydrated cloud volume, and warms them first on every new node.
//!
//! The rooms, and which may name which, are in ARCHITECTURE.md.

pub mod codec;
pub mod cold;
pub mod commands;
pub mod error;
pub mod extent;
#[cfg(feature = "lab")]
pub mod lab;
pub mod profile;
pub mod recording;
pub mod units;
pub mod volume;

pub use error::{Error, Kind, Result};
