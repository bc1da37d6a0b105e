//! What was measured of a volume before, for a run that was told neither unit nor mode.
//!
//! Holds: what is asked for goes before what was found; a unit that was found is verified like any other; where nothing
//! was ever found nothing is read to recognise the volume. Not here: depth, which finds itself while the boot is
//! listened to.

use super::{Bound, Options};
use crate::findings;
use crate::plan::Mode;
use crate::units::ByteSize;
use std::path::Path;

impl Bound {
    /// Takes unit and mode from what is kept of this volume in a folder, where they were left open. To read every byte
    /// becomes the mode; to touch stays open, so that it is verified and given up where it is wrong.
    pub fn use_findings(&mut self, options: &mut Options, folder: &Path) {
        let is_open = options.unit_bytes.is_none() || options.mode.is_none();
        let has_any = || std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some());
        if !is_open || !has_any() {
            return;
        }
        let identity = self.device.recognised(&options.root, self.identity.clone());
        let Some(found) = findings::known(folder, &identity) else { return };
        let by = &found.measured_by;
        if let (None, Some(unit)) = (options.unit_bytes, found.unit) {
            let size = ByteSize(unit.bytes);
            self.known.push(format!("units of {size}, as `{by}` found on this volume"));
            self.unit_bytes = unit.bytes;
        }
        let full = found.best.filter(|best| best.mode == Mode::Full.name());
        if let (None, Some(best)) = (options.mode, full) {
            self.known
                .push(format!("every byte is read, as `{by}` found best on this volume: {}", best.reason));
            options.mode = Some(Mode::Full);
        }
    }
}
