//! Profiles brought into images: `place-profile`, and what the provisioning scripts around it do, on trees of files and on
//! disks with a `/boot` of their own.
//!
//! Not here: what comes of it at a boot (`scripts/packer/rehearse`).

use crate::support::{ext4_image, output, require, require_root, run, shown};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of the slot that `place-profile` lays behind an initramfs.
const SLOT: usize = 65536;
const RECORDS: &str = "ebs_prewarm=record trace_event=block:block_rq_issue,block:block_rq_complete \
     trace_buf_size=8M trace_clock=mono";
const ADDED: &str = "etc/default/grub.d/ebs-prewarm-record.cfg";

/// A folder with a stand-in for the program, which takes every profile for right, and with a profile.
struct Workshop {
    temporary: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Workshop {
        let shop = Workshop { temporary: tempfile::tempdir().unwrap() };
        let program = shop.path("bin/ebs-prewarm");
        shop.write("bin/ebs-prewarm", b"#!/bin/sh\n");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        shop.write("boot.bin", b"\x89EPWP and what is compiled");
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path);
        command
    }

    fn place_profile(&self, root: &str) -> Command {
        let mut command = self.script("place-profile");
        command.arg("--root").arg(self.path(root)).arg(self.path("boot.bin"));
        command
    }

    fn off(&self, root: &str) -> Command {
        let mut command = self.script("packer/provision/kernel-parameters");
        command.args(["off", "--root"]).arg(self.path(root));
        command
    }
}

fn fails(command: &mut Command, says: &str) {
    let done = output(command);
    assert_eq!(done.status.code(), Some(1), "{}", shown(&done));
    assert!(String::from_utf8_lossy(&done.stderr).contains(says), "{}", shown(&done));
}

/// That a profile lies behind an initramfs that was `before`, where a kernel finds it.
fn holds_profile(image: &[u8], before: &[u8]) {
    assert!(image.starts_with(before), "the initramfs itself is as it was");
    let slot = image.len() - SLOT;
    assert_eq!(slot % 4, 0, "an archive lies at a multiple of four");
    // The end of what lz4 packed is told by four zeros alone.
    assert!(slot - before.len() >= 4, "{} bytes of {} before the slot", slot - before.len(), before.len());
    assert!(image[before.len()..slot].iter().all(|byte| *byte == 0));
    assert!(image[slot..].starts_with(b"070701"));
    assert!(image.windows(5).any(|bytes| bytes == b"\x89EPWP"));
}

#[test]
fn a_profile_is_found_behind_an_initramfs_of_any_size() {
    let shop = Workshop::new();
    for size in 1000..1004 {
        shop.write(&format!("root/boot/initrd.img-{size}"), &vec![b'x'; size]);
    }
    for _ in 0..2 {
        run(&mut shop.place_profile("root"));
        for size in 1000..1004 {
            let image = shop.read(&format!("root/boot/initrd.img-{size}"));
            holds_profile(&image, &vec![b'x'; size]);
        }
    }
    assert_eq!(shop.read("root/etc/ebs-prewarm/boot.bin"), shop.read("boot.bin"));
}

#[test]
fn a_crashed_kernels_initramfs_is_told_by_its_own_name() {
    let shop = Workshop::new();
    shop.write("rescue/kdump/boot/initramfs-6.1.img", b"packed");
    shop.write("rescue/kdump/boot/initramfs-6.1kdump.img", b"packed");
    run(&mut shop.place_profile("rescue/kdump"));
    holds_profile(&shop.read("rescue/kdump/boot/initramfs-6.1.img"), b"packed");
    assert_eq!(shop.read("rescue/kdump/boot/initramfs-6.1kdump.img"), b"packed");
}

#[test]
fn a_system_without_an_initramfs_takes_a_profile_only_where_that_is_said() {
    let shop = Workshop::new();
    shop.write("root/boot/vmlinuz", b"");
    fails(&mut shop.place_profile("root"), "failed to find an initramfs");
    assert!(!shop.path("root/etc").exists(), "nothing was begun");
    run(shop.place_profile("root").arg("--no-initramfs"));
    assert_eq!(shop.read("root/etc/ebs-prewarm/boot.bin"), shop.read("boot.bin"));
}

#[test]
fn words_for_the_kernel_are_blanked_where_a_loader_reads_them_or_it_fails() {
    let shop = Workshop::new();
    let added = format!("GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT {RECORDS}\"\n");
    shop.write(&format!("root/{ADDED}"), added.as_bytes());
    // /boot is elsewhere.
    fails(&mut shop.off("root"), "failed to find");
    assert!(shop.path(&format!("root/{ADDED}")).exists(), "it says so again");
    let line = format!("linux /vmlinuz root=LABEL=root {RECORDS} quiet\n");
    shop.write("root/boot/grub/grub.cfg", line.as_bytes());
    run(&mut shop.off("root"));
    let blanked = String::from_utf8(shop.read("root/boot/grub/grub.cfg")).unwrap();
    assert_eq!(blanked.len(), line.len());
    let words: Vec<&str> = blanked.split_whitespace().collect();
    assert_eq!(words, ["linux", "/vmlinuz", "root=LABEL=root", "quiet"]);
    assert!(!shop.path(&format!("root/{ADDED}")).exists());
    // There is nothing to take back any more.
    run(&mut shop.off("root"));
}

/// The file systems of an image whose /boot has a partition of its own.
fn parts(shop: &Workshop) -> (PathBuf, PathBuf) {
    shop.write("tree/etc/os-release", b"ID=ubuntu\n");
    shop.write("tree/etc/fstab", b"LABEL=root / ext4 defaults 0 1\nLABEL=BOOT /boot ext4 defaults 0 2\n");
    shop.write(&format!("tree/{ADDED}"), RECORDS.as_bytes());
    // Names that are alike up to a blank.
    shop.write("tree/usr/share/doc/a file", b"one");
    shop.write("tree/usr/share/doc/a name", &[b'n'; 9000]);
    fs::create_dir_all(shop.path("tree/boot")).unwrap();
    shop.write("boot-tree/initrd.img-6.8", &[b'x'; 5001]);
    shop.write("boot-tree/grub/grub.cfg", format!("linux {RECORDS} quiet\n").as_bytes());
    let (root, boot) = (shop.path("root.ext4"), shop.path("boot.ext4"));
    ext4_image(&root, 32 << 20, &shop.path("tree"));
    ext4_image(&boot, 16 << 20, &shop.path("boot-tree"));
    run(Command::new("e2label").arg(&boot).arg("BOOT"));
    (root, boot)
}

/// A file of an ext4 filesystem.
fn file_of(image: &Path, path: &str) -> Vec<u8> {
    output(Command::new("debugfs").args(["-R", &format!("cat {path}")]).arg(image)).stdout
}

/// That a profile was placed, and that the next boot of the image records nothing.
fn placed(shop: &Workshop, root: &Path, boot: &Path) {
    assert_eq!(file_of(root, "/etc/ebs-prewarm/boot.bin"), shop.read("boot.bin"));
    assert!(file_of(root, ADDED).is_empty());
    holds_profile(&file_of(boot, "/initrd.img-6.8"), &[b'x'; 5001]);
    let grub = String::from_utf8(file_of(boot, "/grub/grub.cfg")).unwrap();
    assert_eq!(grub.split_whitespace().collect::<Vec<_>>(), ["linux", "quiet"]);
}

#[test]
fn an_image_file_whose_boot_is_a_partition_of_its_own_is_finished_whole() {
    if !require_root() || !require("mkfs.ext4") || !require("filefrag") {
        return;
    }
    let shop = Workshop::new();
    let (root, boot) = parts(&shop);
    let disk = File::create(shop.path("disk.raw")).unwrap();
    disk.write_all_at(&fs::read(&root).unwrap(), 1 << 20).unwrap();
    disk.write_all_at(&fs::read(&boot).unwrap(), 48 << 20).unwrap();
    drop(disk);
    let place = |options: &[&str]| {
        let mut command = shop.script("packer/provision/place");
        command
            .args(["--offset", "1048576"])
            .args(options)
            .args([shop.path("disk.raw"), shop.path("boot.bin")]);
        command
    };
    fails(&mut place(&[]), "failed to find the image's /boot, `LABEL=BOOT`");
    let said = run(&mut place(&["--boot-offset", &(48 << 20).to_string()]));
    assert!(said.contains("no file moved"), "{said}");
    let disk = fs::read(shop.path("disk.raw")).unwrap();
    fs::write(&root, &disk[1 << 20..33 << 20]).unwrap();
    fs::write(&boot, &disk[48 << 20..]).unwrap();
    placed(&shop, &root, &boot);
}

/// Loop devices, detached when dropped.
struct Loops(Vec<String>);

impl Loops {
    fn on(files: &[&Path]) -> Loops {
        let mut loops = Loops(Vec::new());
        for file in files {
            let device = run(Command::new("losetup").args(["--find", "--show"]).arg(file));
            loops.0.push(device.trim().to_string());
        }
        loops
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        output(Command::new("losetup").arg("--detach").args(&self.0));
    }
}

#[test]
fn the_boot_of_an_image_is_found_by_what_its_fstab_names() {
    if !require_root() || !require("mkfs.ext4") || !require("filefrag") {
        return;
    }
    let shop = Workshop::new();
    let (root, boot) = parts(&shop);
    // A disk and its partitions, by their names alone: not every kernel has partitions of loop devices.
    File::create(shop.path("empty")).unwrap().set_len(1 << 20).unwrap();
    let loops = Loops::on(&[&shop.path("empty"), &root, &boot]);
    for (name, device) in ["disk", "disk1", "disk16"].iter().zip(&loops.0) {
        symlink(device, shop.path(name)).unwrap();
    }
    let place = || {
        let mut command = shop.script("packer/provision/place");
        command.args([shop.path("disk"), shop.path("boot.bin")]);
        command
    };
    let said = run(&mut place());
    assert!(said.contains("no file moved"), "{said}");
    drop(loops);
    placed(&shop, &root, &boot);
}
