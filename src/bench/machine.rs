//! A real device to measure.

use super::bed::{Bed, Look, OtherReads, Ran};
use super::{READ_BYTES_MAX, SLOTS, foreign};
use crate::device::storage::Kind;
use crate::device::{Device, traffic};
use crate::engine::{self, Source};
use crate::error::{Context, Result};
use crate::plan::PlannedRead;
use crate::process;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// A device, and where `/sys` is found.
pub struct Machine<'a> {
    device: &'a Device,
    root: PathBuf,
    source: Box<dyn Source>,
    is_ebs: bool,
}

impl<'a> Machine<'a> {
    /// Ready to read.
    pub fn new(device: &'a Device, root: &Path, kind: Kind) -> Result<Machine<'a>> {
        let source = engine::open(device.file(), SLOTS, READ_BYTES_MAX)
            .context(|| format!("failed to prepare reads of `{}`", device.path().display()))?;
        Ok(Machine { device, root: root.into(), source, is_ebs: kind == Kind::Ebs })
    }
}

impl Bed for Machine<'_> {
    fn source(&mut self) -> &mut dyn Source {
        &mut *self.source
    }

    fn look(&mut self) -> Look {
        Look {
            traffic: self.device.number().and_then(|number| traffic(&self.root, number)),
            ebs: self.is_ebs.then(|| self.device.ebs_statistics()).flatten(),
            cpu_s: Some(process::cpu_with_children_s()),
        }
    }

    #[cfg(feature = "control")]
    fn tokio_uring(
        &mut self,
        reads: Vec<PlannedRead>,
        depth: u32,
        for_ns: u64,
        stop: &AtomicBool,
    ) -> Result<OtherReads> {
        let shown = self.device.path().display();
        let file = self.device.file().try_clone().context(|| format!("failed to open device `{shown}`"))?;
        super::tokio::read(file, reads, depth, for_ns, stop)
    }

    #[cfg(not(feature = "control"))]
    fn tokio_uring(&mut self, _: Vec<PlannedRead>, _: u32, _: u64, _: &AtomicBool) -> Result<OtherReads> {
        Err(crate::error::Error::failed("failed to read with tokio-uring: this build is without it"))
    }

    fn command(&mut self, line: &str, part: &Range<u64>, stop: &AtomicBool) -> Result<Ran> {
        foreign::run(line, self.device.path(), part, stop)
    }
}
