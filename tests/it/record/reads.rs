//! What is recorded is what was read, and what was lost is counted.

use super::*;

#[test]
fn what_was_read_is_what_is_recorded() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let script = format!(
        "for at in 3000 7 900; do dd if={} of=/dev/null bs=4k iflag=direct count=2 skip=$at; done",
        disk.device
    );
    let output = disk.record("a.rec", &["--", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = disk.read("a.rec");
    assert_eq!(touched(&recording), [(56, 72), (7200, 7216), (24000, 24016)]);
    let order: Vec<u64> = recording.touches().map(|touch| touch.extent.start()).collect();
    assert_eq!(order, [24000, 24008, 56, 64, 7200, 7208]);
    assert!(recording.touches().all(|touch| touch.flags.has(Flags::READ) && touch.latency_us.is_some()));
    assert_eq!(recording.processes, ["dd"]);
    let header = &recording.header;
    assert_eq!((header.events, header.lost(), header.own), (12, 0, 0));
    assert_eq!(header.device, disk.device);
    assert_eq!(header.volume.as_ref().unwrap().sectors, 64 * MIB / 512);
    assert_eq!(header.boot_id, fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    let times = [header.from_us].into_iter().chain(recording.touches().map(|touch| touch.time_us));
    assert!(times.chain([header.until_us]).collect::<Vec<_>>().is_sorted(), "times lie in the recording");
}

#[test]
fn at_depth_64_every_block_is_recorded_once_with_its_latency() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let file = format!("--filename={}", disk.device);
    let fio = ["fio", "--name=r", &file, "--rw=randread", "--bs=4k", "--size=64m", "--iodepth=64"];
    let rest = ["--ioengine=io_uring", "--direct=1", "--numjobs=2", "--output-format=terse"];
    let command: Vec<&str> = ["--"].into_iter().chain(fio).chain(rest).collect();
    let output = disk.record("a.rec", &command).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = disk.read("a.rec");
    assert_eq!(touched(&recording), [(0, 64 * MIB / 512)]);
    assert_eq!(recording.touches.len() as u64, 64 * MIB / 4096);
    let slow = recording.touches().filter(|touch| touch.latency_us.is_none()).count();
    assert_eq!((slow, recording.header.lost()), (0, 0), "each has its latency, none is lost");
    // Two jobs read each block once each; the device's small queue may ask for some again.
    assert!(recording.header.events >= 2 * 2 * 64 * MIB / 4096, "{}", recording.header.events);
}

/// An MBR with one Linux partition from sector 2048 to the end.
fn one_partition(image: &fs::File, sectors: u32) {
    let mut table = [0u8; 512];
    table[440..444].copy_from_slice(&0x1234_5678u32.to_le_bytes());
    table[446 + 4] = 0x83;
    table[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    table[446 + 12..446 + 16].copy_from_slice(&(sectors - 2048).to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    image.write_all_at(&table, 0).unwrap();
}

#[test]
fn a_partition_stands_for_its_whole_disk() {
    if !can_record() {
        return;
    }
    let disk = Disk::new(64 * MIB, |image| one_partition(image, (64 * MIB / 512) as u32));
    let partition = format!("{}p1", disk.device);
    if !Path::new(&partition).exists() {
        // A kernel without support for this table is told of the partition by hand.
        let sectors = 64 * MIB / 512 - 2048;
        run_well("addpart", &[&disk.device, "1", "2048", &sectors.to_string()]);
    }
    let mut command = Command::new(BINARY);
    command.args(["--json", "record", "-o", &disk.path("a.rec"), "--device", &partition, "--", "dd"]);
    command.args([&format!("if={partition}"), "of=/dev/null", "bs=4k", "count=1", "skip=10", "iflag=direct"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = disk.read("a.rec");
    assert_eq!(touched(&recording), [(2048 + 80, 2048 + 88)]);
    let volume = recording.header.volume.as_ref().unwrap();
    assert_eq!(volume.sectors, 64 * MIB / 512);
    assert_eq!(volume.partitions.iter().map(|part| part.start).collect::<Vec<_>>(), [2048]);
    assert_eq!(recording.header.device, disk.device);
    // One document on stdout, whatever the command prints.
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((shown["touches"].as_u64(), shown["bytes_read"].as_u64()), (Some(1), Some(4096)));
    assert_eq!((shown["units"].as_u64(), shown["lost"].as_u64()), (Some(1), Some(0)));
    assert_eq!(shown["slowest"][0]["process"], "dd");
}

fn this_thread() -> u32 {
    let link = fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// A read that goes past the page cache's content: each call reads what no call read before.
fn read_here(device: &str, offset: u64) {
    let mut block = [0; 4096];
    fs::File::open(device).unwrap().read_exact_at(&mut block, offset).unwrap();
}

#[test]
fn own_reads_are_left_out_and_counted() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let options = Options { own_threads: vec![this_thread()], ..options(&disk.device) };
    let mut session = Session::start(Path::new("/"), &options).unwrap();
    read_here(&disk.device, 32 * MIB);
    session.drain().unwrap();
    dd(&disk.device, 5, 1);
    let finished = session.finish().unwrap();
    finished.undone.unwrap();
    assert_eq!(touched(&finished.recording), [(40, 48)]);
    assert!(finished.recording.header.own >= 1, "the read of this thread was counted");
    assert_eq!(finished.recording.header.events, 2);
}

#[test]
fn the_recorder_that_looks_for_its_stop_file_on_the_disk_leaves_that_out() {
    if !can_record() {
        return;
    }
    let mut disk = Disk::plain();
    run_well("mkfs.ext4", &["-q", &disk.device]);
    let place = disk.mount();
    fs::create_dir_all(format!("{place}/deep/down")).unwrap();
    disk.unmount();
    // The kernel itself reads a while after it has mounted what may be written.
    run_well("mount", &["-o", "ro,noload", &disk.device, &place]);
    disk.mounted = true;
    // The first look for the file is before the first wait, so there is one however short the time is.
    let file = format!("{place}/deep/down/up");
    let output = disk.record("a.rec", &["--until-file", &file, "--for", "1ms"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recording = disk.read("a.rec");
    let reads = recording.touches().filter(|touch| touch.flags.has(Flags::READ)).count();
    assert_eq!(reads, 0, "nobody else read");
    let header = recording.header;
    assert!(header.own >= 1, "the look-ups read directories: {header:?}");
    assert!(header.volume.unwrap().fs_uuid.is_some(), "the filesystem is known");
}

#[test]
fn lost_events_are_counted_to_the_last() {
    if !can_record() {
        return;
    }
    const READS: u64 = 4000;
    let disk = Disk::plain();
    let options = Options { ring_bytes: Some(8 << 10), ..options(&disk.device) };
    let session = Session::start(Path::new("/"), &options).unwrap();
    // Nobody looks meanwhile, and 16 KiB of ring hold a hundred requests.
    dd(&disk.device, 0, READS);
    let recording = session.finish().unwrap().recording;
    let header = &recording.header;
    assert!(header.lost() > READS, "{header:?}");
    assert_eq!(header.events + header.lost(), 2 * READS, "{header:?}");
    let read = Extent::at(0, READS * 8).unwrap();
    assert!(!recording.touches.is_empty());
    assert!(recording.touches().all(|touch| read.contains(touch.extent)));
}

#[test]
fn a_small_ring_that_is_drained_in_time_loses_nothing() {
    if !can_record() {
        return;
    }
    let disk = Disk::plain();
    let options = Options { ring_bytes: Some(256 << 10), ..options(&disk.device) };
    let mut session = Session::start(Path::new("/"), &options).unwrap();
    for n in 0..20 {
        dd(&disk.device, n * 500, 500);
        session.drain().unwrap();
    }
    let recording = session.finish().unwrap().recording;
    assert_eq!((recording.header.events, recording.header.lost()), (2 * 20 * 500, 0));
    assert_eq!(touched(&recording), [(0, 20 * 500 * 8)]);
    let places: Vec<u64> = recording.touches().map(|touch| touch.extent.start()).collect();
    assert!(places.is_sorted(), "one reader, so the order of time is that of place, over all CPUs");
}
