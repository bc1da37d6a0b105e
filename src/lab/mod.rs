//! The cold-volume emulator: an image behind a FUSE file whose reads obey the law in `cold`, in real time.
//!
//! Holds: no answer comes before its time; each read of the volume meets the law, nothing above it is cached by
//! us; what was touched first and when is told in `stats.json`, the ground truth for tests. A loop device on
//! the file makes it a disk. Not here: what a read costs (that is `cold`), the command line.

mod attach;
mod client;
mod clock;
mod daemon;
mod files;
mod image;
mod loop_device;
mod mount;
mod punctual;
mod server;
mod stats;

pub use client::{reset, stats, umount};
pub use daemon::{hold_signals, in_background, serve};
pub use image::Image;
pub use loop_device::{LoopDevice, LoopOptions};
pub use mount::{Mount, Options};
pub use stats::{Counts, FirstTouch, Late, Parameters, Stats};
