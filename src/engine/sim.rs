//! A cold volume in virtual time: the law, without a device, a clock or a thread.

use super::source::{Completion, Request, Source};
use crate::cold::{ColdVolume, Op};
use crate::extent::Extent;
use std::io;

/// Reads answered by the law of a cold volume; waiting takes no real time.
#[derive(Debug)]
pub struct SimSource {
    volume: ColdVolume,
    now_ns: u64,
    lengths: Vec<u32>,
}

impl SimSource {
    /// Over a volume; at most `slots` reads in flight.
    pub fn new(volume: ColdVolume, slots: u32) -> Self {
        SimSource { volume, now_ns: 0, lengths: vec![0; slots as usize] }
    }

    /// The volume, to look at.
    pub fn volume(&self) -> &ColdVolume {
        &self.volume
    }

    /// The volume, to change it.
    pub fn volume_mut(&mut self) -> &mut ColdVolume {
        &mut self.volume
    }

    /// Lets virtual time pass to `now_ns`, from wherever it is.
    pub fn advance_to(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }
}

impl Source for SimSource {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn submit(&mut self, request: Request) -> io::Result<()> {
        let extent = Extent::of_bytes(request.offset, u64::from(request.bytes));
        let extent = extent.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let left = (self.volume.sectors() * crate::units::SECTOR_BYTES).saturating_sub(request.offset);
        self.lengths[request.slot as usize] = u64::from(request.bytes).min(left) as u32;
        self.volume.submit(self.now_ns, u64::from(request.slot), Op::Read, extent);
        Ok(())
    }

    fn wait(&mut self, until_ns: Option<u64>, done: &mut Vec<Completion>) -> io::Result<()> {
        let already = done.len();
        loop {
            while let Some(answer) = self.volume.pop_due(self.now_ns) {
                let slot = answer.id as u32;
                let result = if answer.failed { Err(libc::EIO) } else { Ok(self.lengths[slot as usize]) };
                done.push(Completion { slot, at_ns: answer.at_ns, result });
            }
            if done.len() > already {
                return Ok(());
            }
            match (self.volume.next_due_ns(), until_ns) {
                (Some(due), until) if until.is_none_or(|until| due <= until) => self.advance_to(due),
                (_, Some(until)) => {
                    self.advance_to(until);
                    return Ok(());
                }
                (_, None) => return Ok(()),
            }
        }
    }

    fn describe(&self) -> String {
        format!("simulated ({})", self.volume.model().name)
    }
}
