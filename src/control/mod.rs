//! The control plane of a daemon that warms: a socket to watch it, wait for it and order it about, systemd's
//! notifications, metrics.
//!
//! Holds: the warming never waits for anything here: it hands over what it did through a channel that takes no more when
//! it is full; clients, their lines, their time and their answers are limited; what decides is pure and is told the time.
//! Not here: what is warmed, and how.

mod client;
mod daemon;
#[cfg(test)]
mod fixtures;
mod journal;
mod listen;
mod metrics;
mod notify;
pub mod protocol;
mod serve;
mod state;
mod status;
mod stream;
mod volumes;
mod watch;

pub use client::{ask, stop, wait};
pub use daemon::{Finished, Options, Several, Volume, Work, run};
pub use journal::JournalFormat;
pub use listen::{SOCKET, is_there};
pub use status::{Phase, StageStatus, Status, Traffic};

/// So many clients may be about to ask or to take their answer at once: the oldest that has not asked makes room.
const CLIENTS_MAX: usize = 64;
/// So many may wait for a stage or for the end.
const WAITERS_MAX: usize = 64;
