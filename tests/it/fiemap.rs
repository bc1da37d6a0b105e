//! `profile paths` on real filesystems: what it names is where the files' bytes are.

use crate::profile::{mbr, run, shown};
use crate::support::require_root;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[track_caller]
fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const START: u64 = 2048;
const SECTORS: u64 = 48 << 11;

/// A disk with one partition, mounted; undone on drop.
struct Disk {
    dir: tempfile::TempDir,
    device: String,
    mounted: bool,
    node: Option<PathBuf>,
}

impl Disk {
    fn new(mkfs: &str) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk");
        fs::write(&image, mbr(0xabcd_1234, START as u32, SECTORS as u32)).unwrap();
        fs::File::options().write(true).open(&image).unwrap().set_len((START + SECTORS) * 512).unwrap();
        let device = sh(&format!("losetup --find --show {}", image.display()));
        // Not by the kernel's own scan: it may be built without partition tables.
        sh(&format!("partx --add {device}"));
        let mut disk = Disk { dir, device, mounted: false, node: None };
        let partition = disk.partition();
        fs::create_dir(disk.mount()).unwrap();
        sh(&format!("{mkfs} {partition} && mount {partition} {}", disk.mount().display()));
        disk.mounted = true;
        disk
    }

    /// The partition's node, made where no udev makes it.
    fn partition(&mut self) -> String {
        let name = self.device.trim_start_matches("/dev/");
        let node = format!("{}p1", self.device);
        if !Path::new(&node).exists() {
            let numbers = fs::read_to_string(format!("/sys/block/{name}/{name}p1/dev")).unwrap();
            sh(&format!("mknod {node} b {}", numbers.trim().replace(':', " ")));
            self.node = Some(node.clone().into());
        }
        node
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// A file with the given bytes, at 64 KiB steps where it is to have holes.
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.mount().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().write_all(bytes).unwrap();
    }

    /// The bytes at extents on the whole disk, around the page cache of the partition.
    fn read(&self, extents: &[[u64; 2]]) -> Vec<u8> {
        sh(&format!("sync; blockdev --flushbufs {}", self.device));
        let device = fs::File::open(&self.device).unwrap();
        let mut bytes = Vec::new();
        for [start, sectors] in extents {
            let mut part = vec![0; (sectors * 512) as usize];
            device.read_exact_at(&mut part, start * 512).unwrap();
            bytes.append(&mut part);
        }
        bytes
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.mounted) {
            sh(&format!("umount {}", self.mount().display()));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
        sh(&format!("partx --delete {0}; losetup --detach {0}", self.device));
        if let Some(node) = &self.node {
            let _ = fs::remove_file(node);
        }
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// What `filefrag -v` says of a file, as sectors of the whole disk; unwritten and inline extents left out.
fn filefrag(path: &Path) -> BTreeSet<u64> {
    let text = sh(&format!("filefrag -v -b512 {}", path.display()));
    let mut sectors = BTreeSet::new();
    for line in text.lines() {
        // `   0:        0..     255:      34816..     35071:    256:             last,eof`
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        let [_, _, physical, length, ..] = fields[..] else { continue };
        let Some((first, _)) = physical.split_once("..") else { continue };
        let flags = line.rsplit(':').next().unwrap();
        if flags.contains("unwritten") || flags.contains("inline") {
            continue;
        }
        let first: u64 = first.trim().parse().unwrap();
        let length: u64 = length.trim().parse().unwrap();
        sectors.extend(START + first..START + first + length);
    }
    sectors
}

fn sectors(extents: &[[u64; 2]]) -> BTreeSet<u64> {
    extents.iter().flat_map(|[start, count]| *start..start + count).collect()
}

fn profile_of(disk: &Disk, paths: &str) -> (serde_json::Value, Vec<[u64; 2]>) {
    let dir = disk.dir.path();
    let summary = run(dir, &format!("--json profile paths -o p.yaml {paths}")).ok();
    (serde_json::from_str(&summary).unwrap(), shown(&run(dir, "profile show --json p.yaml").ok()))
}

fn files_are_where_it_says(mkfs: &str, folders_are_mapped: bool) {
    let disk = Disk::new(mkfs);
    let mount = disk.mount();
    let big = noise(1, 3_000_000);
    disk.write("big", &big);
    disk.write("tree/a/one", &noise(2, 5000));
    disk.write("tree/b/two", &noise(3, 70_000));
    disk.write("tree/empty", b"");
    let holes = fs::File::create(mount.join("tree/holes")).unwrap();
    for n in 0..200u64 {
        holes.write_all_at(&noise(n + 9, 4096), n * 65_536).unwrap();
    }
    sh(&format!(
        "cd {}/tree && ln -s ../big link && mkfifo pipe && fallocate -l 1M ahead && ln b/two twice && sync",
        mount.display()
    ));
    let (_, extents) = profile_of(&disk, "mnt/big");
    assert_eq!(disk.read(&extents)[..big.len()], big[..], "the sectors hold other bytes than the file");
    assert_eq!(sectors(&extents), filefrag(&mount.join("big")));

    let (summary, extents) = profile_of(&disk, "mnt/tree");
    let mut expected = BTreeSet::new();
    for file in ["a/one", "b/two", "holes", "ahead"] {
        expected.append(&mut filefrag(&mount.join("tree").join(file)));
    }
    let counts = &summary["counts"];
    let have = sectors(&extents);
    assert!(have.is_superset(&expected));
    // What is more are the folders' own blocks: 3 of 4 KiB on ext4.
    assert_eq!(have.len() - expected.len(), if folders_are_mapped { 24 } else { 0 });
    for (what, count) in [
        ("files", 6),
        ("folders", 3),
        ("symlinks", 1),
        ("special", 1),
        ("not_written_back", 0),
        ("failed", 0),
        ("unknown", 0),
    ] {
        assert_eq!(counts[what], count, "{what}: {counts}");
    }
    assert!(counts["unwritten"].as_u64().unwrap() >= 1, "{counts}");
    // XFS allocates ahead: what ext4 leaves out is unwritten there.
    if folders_are_mapped {
        assert_eq!(counts["hole_bytes"], 199 * (65_536 - 4096), "{counts}");
    }
    for file in ["a/one", "b/two"] {
        let (_, extents) = profile_of(&disk, &format!("mnt/tree/{file}"));
        let bytes = fs::read(mount.join("tree").join(file)).unwrap();
        assert_eq!(disk.read(&extents)[..bytes.len()], bytes[..], "{file}");
    }
}

#[test]
fn on_ext4_files_are_where_it_says() {
    if require_root() {
        files_are_where_it_says("mkfs.ext4 -q -b 4096", true);
    }
}

#[test]
fn on_xfs_files_are_where_it_says() {
    if require_root() {
        if Command::new("mkfs.xfs").arg("-V").output().is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "needs mkfs.xfs, and CI must not skip");
            eprintln!("SKIPPED: needs mkfs.xfs");
            return;
        }
        files_are_where_it_says("mkfs.xfs -q --unsupported", false);
    }
}

#[test]
fn two_filesystems_and_mounts_below_are_told_apart() {
    if !require_root() {
        return;
    }
    let (disk, other) = (Disk::new("mkfs.ext4 -q"), Disk::new("mkfs.ext4 -q"));
    disk.write("a/file", &noise(1, 9000));
    other.write("file", &noise(2, 9000));
    let both = format!("profile paths -o p.yaml mnt/a/file {}/file", other.mount().display());
    let error = run(disk.dir.path(), &both).fails(1, &["mnt/a/file", "different filesystems"]);
    assert!(error.contains(&format!("{}/file", other.mount().display())), "{error}");

    fs::create_dir(disk.mount().join("a/below")).unwrap();
    sh(&format!("sync; mount --bind {} {}/a/below", other.mount().display(), disk.mount().display()));
    let summary = std::panic::catch_unwind(|| profile_of(&disk, "mnt/a").0);
    sh(&format!("umount {}/a/below", disk.mount().display()));
    let counts = &summary.unwrap()["counts"];
    assert_eq!((&counts["mounts"], &counts["files"]), (&1.into(), &1.into()), "{counts}");

    let tmpfs = disk.dir.path().join("tmpfs");
    fs::create_dir(&tmpfs).unwrap();
    sh(&format!("mount -t tmpfs none {0} && echo x > {0}/file", tmpfs.display()));
    let ran = run(disk.dir.path(), "profile paths -o p2.yaml tmpfs/file");
    sh(&format!("umount {}", tmpfs.display()));
    ran.fails(1, &["tmpfs/file", "lies on tmpfs", "record"]);
    assert!(!disk.dir.path().join("p2.yaml").exists());
}

#[test]
fn a_profile_finds_the_files_on_a_moved_partition_and_refuses_another_filesystem() {
    if !require_root() {
        return;
    }
    let mut disk = Disk::new("mkfs.ext4 -q");
    let bytes = noise(5, 200_000);
    disk.write("file", &bytes);
    sh("sync");
    let (_, here) = profile_of(&disk, "mnt/file");
    disk.unmount();
    // The same partition, 1 MiB further on, on a disk that is 3 MiB larger.
    let dir = disk.dir.path();
    let moved = dir.join("moved");
    fs::write(&moved, mbr(0xabcd_1234, 2 * START as u32, SECTORS as u32)).unwrap();
    sh(&format!(
        "cd {} && truncate -s $(( ({START} + {SECTORS}) * 512 + (3 << 20) )) moved && \
         dd if=disk of=moved bs=1M skip=1 seek=2 conv=notrunc,sparse status=none",
        dir.display()
    ));
    run(dir, "profile check p.yaml --device moved").ok();
    run(dir, "profile compile -o p.bin p.yaml").ok();
    let there = shown(&run(dir, "profile show --json p.bin --device moved").ok());
    let by = START;
    assert_eq!(there, here.iter().map(|[start, count]| [start + by, *count]).collect::<Vec<_>>());
    let image = fs::File::open(&moved).unwrap();
    let mut read = Vec::new();
    for [start, count] in &there {
        let mut part = vec![0; (count * 512) as usize];
        image.read_exact_at(&mut part, start * 512).unwrap();
        read.append(&mut part);
    }
    assert_eq!(read[..bytes.len()], bytes[..]);
    // The same table, another filesystem.
    // The cache of the whole disk knows nothing of what a partition wrote.
    sh(&format!("mkfs.ext4 -q -F {0}p1 && sync && blockdev --flushbufs {0}", disk.device));
    let check = format!("profile check p.bin --device {}", disk.device);
    run(dir, &check).fails(4, &["p.bin", &disk.device, "filesystem: partition abcd1234-01 has UUID"]);
}
