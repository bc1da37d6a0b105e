//! The emulator through its verbs: what it serves and what it counts.

use crate::support::{
    ColdFile, ColdLoop, ebs, pattern, patterned_image, read_direct, require, require_root, run,
};
use ebs_prewarm::lab::{LoopDevice, LoopOptions, Stats};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;
const UNIT: u64 = 512 << 10;
/// Fast enough to wait for, slow enough to be a wait.
const QUICK: [&str; 2] = ["first_read=2ms", "hydration=0"];

fn touched(stats: &Stats) -> Vec<u64> {
    stats.touched.iter().map(|touch| touch.unit).collect()
}

#[test]
fn every_way_of_reading_meets_the_law_and_gives_the_images_bytes() {
    if !require_root() {
        return;
    }
    let cold = ColdLoop::new(32 * MIB, "gp3", &QUICK);
    let volume = cold.file().volume();
    assert_eq!(std::fs::metadata(&volume).unwrap().len(), 32 * MIB);

    let mut buffer = vec![0; 700];
    File::open(&volume).unwrap().read_exact_at(&mut buffer, 3 * UNIT + 5).unwrap();
    assert_eq!(buffer, pattern(3 * UNIT + 5, 700), "buffered, not aligned");
    assert_eq!(read_direct(&volume, UNIT, 4096).unwrap(), pattern(UNIT, 4096), "direct");
    assert_eq!(read_direct(cold.device(), 9 * UNIT, 8192).unwrap(), pattern(9 * UNIT, 8192), "loop, direct");
    assert_eq!(touched(&cold.stats()), [3, 1, 9]);

    // Over the border of two units, and at the end.
    let at = 20 * UNIT - 4096;
    assert_eq!(read_direct(&volume, at, 8192).unwrap(), pattern(at, 8192));
    assert_eq!(read_direct(&volume, 32 * MIB - 4096, 8192).unwrap(), pattern(32 * MIB - 4096, 4096));
    assert_eq!(read_direct(&volume, 32 * MIB, 4096).unwrap(), [0u8; 0]);
    let stats = cold.stats();
    assert_eq!(touched(&stats), [3, 1, 9, 19, 20, 63]);
    assert_eq!((stats.counters.reads, stats.counters.cold_reads, stats.counters.fetches), (5, 5, 6));
    assert_eq!((stats.units, stats.cold_units), (64, 58));
    assert!(stats.touched.windows(2).all(|pair| pair[0].at_ns <= pair[1].at_ns), "{:?}", stats.touched);

    // Read again, a unit is warm; a buffered read above us is not cached.
    File::open(&volume).unwrap().read_exact_at(&mut buffer, 3 * UNIT + 5).unwrap();
    let again = cold.stats().counters;
    assert_eq!((again.reads, again.cold_reads), (6, 5));

    // All of it, through the page cache of the device.
    assert!(std::fs::read(cold.device()).unwrap() == pattern(0, 32 << 20));
    assert_eq!(cold.stats().cold_units, 0);
    assert_eq!(cold.stats().touched_units(), (0..64).collect::<Vec<_>>());
}

#[test]
fn a_reset_makes_it_cold_again_for_every_reader() {
    if !require_root() {
        return;
    }
    let cold = ColdLoop::new(8 * MIB, "gp3", &QUICK);
    let volume = File::open(cold.file().volume()).unwrap();
    for round in 0..2 {
        volume.read_exact_at(&mut [0; 10], 2 * UNIT).unwrap();
        File::open(cold.device()).unwrap().read_exact_at(&mut [0; 10], 5 * UNIT).unwrap();
        let stats = cold.stats();
        assert_eq!(stats.touched_units().first(), Some(&2), "round {round}");
        assert!(stats.touched_units().contains(&5), "round {round}: {stats:?}");
        cold.reset();
        let stats = cold.stats();
        assert_eq!((stats.cold_units, stats.counters.reads, stats.touched.len()), (16, 0, 0));
    }
    let text = ebs(["lab", "stats", cold.file().dir().to_str().unwrap()]);
    assert!(text.contains("16 of 16 cold") && text.contains("gp3, seed 1: unit 512KiB"), "{text}");
}

#[test]
fn concurrent_reads_of_one_unit_share_one_fetch() {
    if !require_root() {
        return;
    }
    // Long enough that all readers wait at once; should the machine be slower than that, again.
    let cold = ColdFile::new(8 * MIB, "gp3", &["first_read=1s", "sigma=0"]);
    let volume = cold.volume();
    for _ in 0..10 {
        cold.reset();
        std::thread::scope(|scope| {
            for reader in 0..16 {
                let volume = &volume;
                scope.spawn(move || {
                    let offset = 5 * UNIT + reader * 4096;
                    assert_eq!(read_direct(volume, offset, 4096).unwrap(), pattern(offset, 4096));
                });
            }
        });
        let counters = cold.stats().counters;
        assert_eq!((counters.reads, counters.fetches, counters.hydrated), (16, 1, 1));
        if counters.cold_reads == 16 {
            return;
        }
    }
    panic!("16 readers never met in one second");
}

#[test]
fn bad_units_and_sectors_answer_eio_and_spare_the_rest() {
    if !require_root() {
        return;
    }
    let cold = ColdFile::new(8 * MIB, "gp3", &[QUICK[0], QUICK[1], "eio_units=3", "eio_sectors=7168+8"]);
    let read = |offset| read_direct(&cold.volume(), offset, 4096).map_err(|error| error.raw_os_error());
    for _ in 0..2 {
        assert_eq!(read(3 * UNIT + 8192), Err(Some(libc::EIO)));
    }
    assert_eq!(read(7 * UNIT), Err(Some(libc::EIO)));
    assert_eq!(read(7 * UNIT + 4096), Ok(pattern(7 * UNIT + 4096, 4096)));
    let stats = cold.stats();
    assert_eq!((stats.counters.errors, stats.counters.hydrated), (3, 1));
    assert_eq!(touched(&stats), [3, 7]);
    assert_eq!((stats.model.eio_units, stats.model.eio_sectors), (vec![3], vec![(7168, 8)]));
}

#[test]
fn fio_at_depth_64_touches_just_the_units_it_read() {
    if !require_root() || !require("fio") {
        return;
    }
    let cold = ColdLoop::sparse(1024 * MIB, "io2", &["first_read=5ms"]);
    let log = cold.file().scratch().join("iolog");
    run(Command::new("fio")
        .args(["--name=x", "--ioengine=io_uring", "--direct=1", "--rw=randread", "--bs=4k", "--iodepth=64"])
        .args(["--number_ios=1500", "--readonly"])
        .arg(format!("--filename={}", cold.device().display()))
        .arg(format!("--write_iolog={}", log.display())));
    let log = std::fs::read_to_string(log).unwrap();
    let offsets = log.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = fields.iter().position(|field| *field == "read")?;
        fields.get(at + 1)?.parse::<u64>().ok()
    });
    let offsets: Vec<u64> = offsets.collect();
    let units: BTreeSet<u64> = offsets.iter().map(|offset| offset / UNIT).collect();
    assert!(units.len() > 1000, "{} units", units.len());
    let stats = cold.stats();
    assert_eq!(stats.touched_units(), units.into_iter().collect::<Vec<_>>());
    assert_eq!(stats.counters.reads, offsets.len() as u64);
    assert_eq!(stats.counters.fetches, stats.touched.len() as u64);
}

#[test]
fn a_read_of_a_mebibyte_is_one_request() {
    if !require_root() {
        return;
    }
    let cold = ColdFile::new(8 * MIB, "gp3", &QUICK);
    assert_eq!(read_direct(&cold.volume(), 2 * MIB, MIB as usize).unwrap(), pattern(2 * MIB, MIB as usize));
    let stats = cold.stats();
    assert_eq!((stats.counters.reads, stats.counters.bytes_read), (1, MIB));
    assert_eq!(touched(&stats), [4, 5]);
}

#[test]
fn writes_reach_the_image_only_where_they_may() {
    if !require_root() {
        return;
    }
    let read_only = ColdFile::new(4 * MIB, "gp3", &QUICK);
    let refused = OpenOptions::new().write(true).open(read_only.volume()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    assert!(OpenOptions::new().write(true).open(read_only.dir().join("stats.json")).is_err());
    let wrong = std::fs::write(read_only.dir().join("control"), "explode").unwrap_err();
    assert_eq!(wrong.raw_os_error(), Some(libc::EINVAL));

    let cold = ColdFile::made(|path| patterned_image(path, 4 * MIB), "gp3", &QUICK, &["--writable"]);
    let volume = OpenOptions::new().read(true).write(true).open(cold.volume()).unwrap();
    volume.write_all_at(&[7; 4096], UNIT).unwrap();
    volume.write_all_at(&vec![9; UNIT as usize], 4 * UNIT).unwrap();
    volume.sync_all().unwrap();
    assert!(volume.write_all_at(&[1; 8], 4 * MIB).is_err(), "no room past the end");
    let image = std::fs::read(cold.image()).unwrap();
    assert_eq!(image.len() as u64, 4 * MIB);
    assert!(image[UNIT as usize..][..4096] == [7; 4096]);
    assert!(image[4 * UNIT as usize..][..UNIT as usize].iter().all(|&byte| byte == 9));
    let stats = cold.stats();
    assert_eq!((stats.counters.writes, stats.counters.fetches), (2, 1), "a whole unit needs no fetch");
    assert_eq!(read_direct(&cold.volume(), UNIT, 4096).unwrap(), [7; 4096]);
}

#[test]
fn holes_are_unallocated_where_that_is_asked() {
    if !require_root() {
        return;
    }
    let sparse = |path: &Path| {
        let file = File::create(path).unwrap();
        file.set_len(8 * MIB).unwrap();
        file.write_all_at(&[1; 4096], 3 * UNIT).unwrap();
        file.write_all_at(&[1; 4096], 8 * UNIT - 4096).unwrap();
    };
    let all_cold = ColdFile::made(sparse, "gp3", &QUICK, &[]);
    assert_eq!(all_cold.stats().cold_units, 16);
    let cold = ColdFile::made(sparse, "gp3", &QUICK, &["--holes-unallocated"]);
    assert_eq!(cold.stats().cold_units, 2);
    std::fs::read(cold.volume()).unwrap();
    assert_eq!(cold.stats().touched_units(), [3, 7]);
}

#[test]
fn loop_devices_are_what_was_asked_for() {
    if !require_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    patterned_image(&image, 4 * MIB);
    for (read_only, block_bytes, partitions) in [(true, 512, false), (false, 4096, false), (true, 512, true)]
    {
        let options = LoopOptions { read_only, block_bytes, partitions, direct_io: true };
        let device = LoopDevice::attach(&image, options).unwrap();
        let name = device.path().file_name().unwrap().to_str().unwrap().to_owned();
        let sys = |file: &str| {
            let text = std::fs::read_to_string(format!("/sys/block/{name}/{file}")).unwrap();
            text.trim().to_owned()
        };
        assert_eq!(sys("ro"), if read_only { "1" } else { "0" });
        assert_eq!(sys("loop/dio"), "1");
        assert_eq!(sys("queue/logical_block_size"), block_bytes.to_string());
        // Whether partitions then appear is up to the tables that the kernel was built to know.
        assert_eq!(sys("loop/partscan"), if partitions { "1" } else { "0" });
        assert_eq!(read_direct(device.path(), MIB, 4096).unwrap(), pattern(MIB, 4096));
        device.detach().unwrap();
        // Somebody else may have it by now.
        let holds = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"));
        assert!(!holds.is_ok_and(|file| Path::new(file.trim()) == image.canonicalize().unwrap()));
    }

    // One that is open elsewhere says so, and goes when it is closed.
    let device = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
    let path = device.path().to_owned();
    let open = File::open(&path).unwrap();
    let text = device.detach().unwrap_err().full_text();
    assert!(text.contains("in use") && text.contains(path.to_str().unwrap()), "{text}");
    drop(open);
}
