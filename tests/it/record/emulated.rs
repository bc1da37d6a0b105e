//! The recording of a cold volume, held against what the emulator knows that it hydrated.

use super::*;

/// An image mounted as a cold volume, on a loop device; all of it goes away with it.
struct Cold {
    disk: Disk,
    dir: String,
}

impl Cold {
    fn new(mut disk: Disk) -> Cold {
        disk.detach();
        let (image, dir) = (disk.path("image"), disk.path("cold"));
        fs::create_dir(&dir).unwrap();
        run_well(BINARY, &["lab", "mount", &image, &dir, "--model", "io2", "--set", "first_read=5ms"]);
        let mut cold = Cold { disk, dir };
        let volume = format!("{}/volume", cold.dir);
        cold.disk.attach(&["-f", "--show", "--direct-io=on", "--read-only", &volume]);
        // Attaching reads the partition table.
        run_well("blockdev", &["--flushbufs", &cold.disk.device]);
        run_well(BINARY, &["lab", "reset", &cold.dir]);
        cold
    }

    /// Units in the order in which they were first touched.
    fn hydrated(&self) -> Vec<u64> {
        let stats = run_well(BINARY, &["--json", "lab", "stats", &self.dir]);
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        let units = stats["touched"].as_array().unwrap().iter();
        units.map(|touched| touched["unit"].as_u64().unwrap()).collect()
    }
}

impl Drop for Cold {
    fn drop(&mut self) {
        self.disk.detach();
        run(BINARY, &["lab", "umount", &self.dir]);
    }
}

fn units(recording: &Recording) -> BTreeSet<u64> {
    recording.touches().flat_map(|touch| touch.extent.units(1024)).collect()
}

#[test]
fn a_workload_through_a_filesystem_is_recorded_unit_for_unit() {
    if !can_record() {
        return;
    }
    let mut disk = Disk::plain();
    run_well("mkfs.ext4", &["-q", &disk.device]);
    let place = disk.mount();
    for n in 0..200usize {
        let text = format!("file {n}\n").repeat(1 + n * 37 % 4000);
        fs::create_dir_all(format!("{place}/{}", n % 20)).unwrap();
        fs::write(format!("{place}/{}/{n}", n % 20), text).unwrap();
    }
    disk.unmount();
    let cold = Cold::new(disk);
    let script = format!(
        "set -e; mount -o ro,noload {} {place}; find {place} -type f >/dev/null
         grep -r 'file 7' {place}/3 {place}/7 >/dev/null
         for n in 101 99 142; do
           dd if={place}/$((n % 20))/$n of=/dev/null bs=4k skip=2 count=1 iflag=direct
         done
         umount {place}",
        cold.disk.device
    );
    let output = cold.disk.record("a.rec", &["--", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = cold.disk.read("a.rec");
    let hydrated = cold.hydrated();
    assert!(hydrated.len() > 5, "{hydrated:?}");
    assert_eq!(units(&recording), hydrated.into_iter().collect(), "none missing, none extra");
    assert_eq!(recording.header.lost(), 0);
}

#[test]
fn raw_reads_at_depth_64_are_recorded_unit_for_unit() {
    if !can_record() {
        return;
    }
    let cold = Cold::new(Disk::new(256 * MIB, |_| {}));
    let file = format!("--filename={}", cold.disk.device);
    let fio = ["--", "fio", "--name=r", &file, "--rw=randread", "--bs=4k", "--io_size=2m", "--direct=1"];
    let rest = ["--readonly", "--ioengine=io_uring", "--iodepth=64", "--norandommap", "--randseed=7"];
    let command: Vec<&str> = fio.into_iter().chain(rest).collect();
    let output = cold.disk.record("a.rec", &command).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = cold.disk.read("a.rec");
    let hydrated = cold.hydrated();
    assert!(hydrated.len() > 200, "{}", hydrated.len());
    // The recorder recognises the volume by its beginning when tracing is off.
    let recorded: BTreeSet<u64> = units(&recording).into_iter().chain([0]).collect();
    let hydrated: BTreeSet<u64> = hydrated.into_iter().chain([0]).collect();
    assert_eq!(recorded, hydrated, "none missing, none extra");
}

#[test]
fn reads_in_turn_are_recorded_in_the_order_of_hydration() {
    if !can_record() {
        return;
    }
    let cold = Cold::new(Disk::plain());
    let script = format!(
        "for at in 0 90 17 4 120 33; do dd if={} of=/dev/null bs=512k iflag=direct count=1 skip=$at; done",
        cold.disk.device
    );
    let output = cold.disk.record("a.rec", &["--", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = cold.disk.read("a.rec");
    let mut order: Vec<u64> = recording.touches().flat_map(|touch| touch.extent.units(1024)).collect();
    order.dedup();
    assert_eq!(order, [0, 90, 17, 4, 120, 33]);
    assert_eq!(order, cold.hydrated());
}
