//! What the kernel traced since it started: found, told from what nobody traced, and taken over.
//!
//! Holds: nothing is set here that empties a ring. Not here: reading it ([`super::rings`]), undoing
//! ([`super::tracefs`]).
//!
//! The kernel's command line switches the events on before there is a disk, either into the kernel's own ring
//! ([`PARAMETERS`]) or, from 6.3 on, into an instance (`trace_instance=ebs-prewarm,…`); a script of an initramfs
//! can make the same instance by hand. We go on reading that very ring, so there is no seam: no event is missed
//! or read twice where the boot's events end and ours begin.

use super::tracefs::{EVENTS, Instance};
use super::wait;
use crate::error::{Error, Result};
use std::fs::File;
use std::path::Path;

/// What to give the kernel, 5.10 or newer. The clock is not a matter of taste: where the processor's counter
/// turns out to be unsteady, the kernel changes a default clock late in its start, and that empties the ring.
pub const PARAMETERS: &str =
    "trace_event=block:block_rq_issue,block:block_rq_complete trace_buf_size=8M trace_clock=mono";

/// The instance that the boot may trace into; the names of our own have more behind it.
const NAME: &str = "ebs-prewarm";

/// A ring that the boot filled, and the lock that keeps a second recorder from taking half of it.
pub struct BootRing {
    /// Where it is traced to.
    pub instance: Instance,
    /// Released when it is closed.
    pub lock: File,
}

/// The boot's ring: the instance where there is one, or else the kernel's own ring.
pub fn find(tracefs: &Path) -> Result<BootRing> {
    let named = tracefs.join("instances").join(NAME);
    let (place, is_top) = if is_traced(&named) { (named, false) } else { (tracefs.to_path_buf(), true) };
    if is_top && !is_traced(&place) {
        return Err(Error::failed(format!(
            "failed to find a trace of the boot: block events are off in `{}` and there is no instance `{}`",
            tracefs.display(),
            tracefs.join("instances").join(NAME).display()
        ))
        .hint(format!("boot with these kernel parameters: {PARAMETERS}")));
    }
    let lock = wait::lock_dir(tracefs).map_err(|cause| {
        Error::failed(format!("failed to lock the trace of the boot in `{}`", tracefs.display()))
            .because(cause)
            .hint("another `record --boot-ring` reads it")
    })?;
    let instance = if is_top { Instance::adopt_top(place) } else { Instance::adopt(place) };
    Ok(BootRing { instance, lock })
}

/// Whether both events are on and go into a ring.
pub fn is_traced(place: &Path) -> bool {
    let is_on = |name: &str| {
        // `1*` has a trigger besides.
        super::tracefs::read_whole(&place.join(name)).is_ok_and(|text| text.starts_with('1'))
    };
    is_on("tracing_on") && EVENTS.iter().all(|event| is_on(&format!("events/block/{event}/enable")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(place: &Path, on: [&str; 3]) {
        let names =
            ["tracing_on", "events/block/block_rq_issue/enable", "events/block/block_rq_complete/enable"];
        for (name, text) in names.into_iter().zip(on) {
            let path = place.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn found(tracefs: &Path) -> Result<String> {
        let ring = find(tracefs)?;
        let path = ring.instance.path("x").display().to_string();
        // These are plain files: there is nothing to undo.
        std::mem::forget(ring.instance);
        Ok(path)
    }

    #[test]
    fn a_trace_is_one_where_both_events_go_into_a_ring() {
        let dir = tempfile::tempdir().unwrap();
        for (on, is) in [
            (["1\n", "1\n", "1\n"], true),
            (["1\n", "1*\n", "1\n"], true),
            (["0\n", "1\n", "1\n"], false),
            (["1\n", "0\n", "1\n"], false),
            (["1\n", "1\n", "0\n"], false),
            (["", "", ""], false),
        ] {
            write(dir.path(), on);
            assert_eq!(found(dir.path()).is_ok(), is, "{on:?}");
        }
        let error = found(dir.path()).unwrap_err().full_text();
        assert!(error.contains(PARAMETERS) && error.contains("instances/ebs-prewarm"), "{error}");
        assert!(found(&dir.path().join("none")).is_err());
    }

    #[test]
    fn the_instance_goes_before_the_kernels_own_ring_and_only_one_may_read() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ["1", "1", "1"]);
        write(&dir.path().join("instances/ebs-prewarm"), ["1", "1", "1"]);
        assert!(found(dir.path()).unwrap().ends_with("instances/ebs-prewarm/x"));
        write(&dir.path().join("instances/ebs-prewarm"), ["0", "1", "1"]);
        assert_eq!(found(dir.path()).unwrap(), dir.path().join("x").display().to_string());
        let _lock = wait::lock_dir(dir.path()).unwrap();
        let error = found(dir.path()).unwrap_err().full_text();
        assert!(error.contains("another `record --boot-ring`"), "{error}");
    }
}
