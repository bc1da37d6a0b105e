"""Images: a Debian by debootstrap, the node's work on top, on a disk with one partition.

Holds: what is made is kept under a name that hashes all it was made of, and appears whole or not at all; the image
is never written to again. No mount is left behind, and no loop device is needed: the filesystem is made in place.
"""

import hashlib
import os
import pathlib
import shutil
import uuid
from dataclasses import dataclass, field

from . import debian
from .shell import LabError, privately, run, say

HERE = pathlib.Path(__file__).resolve().parent.parent
REPOSITORY = HERE.parent.parent
NODE = HERE / "node"

DISK_BYTES = 8 << 30
# Where partitioning tools put the first partition.
PARTITION_START = 1 << 20
# The backup table, and room for it.
TAIL_BYTES = 1 << 20
# Fixed, so that one recipe gives one image, byte by byte as far as the tools allow.
DISK_UUID = "5d0b4a5e-6b5d-4ec1-9d09-2a3c0b3c1d01"
PART_UUID = "5d0b4a5e-6b5d-4ec1-9d09-2a3c0b3c1d02"
FS_UUID = "5d0b4a5e-6b5d-4ec1-9d09-2a3c0b3c1d03"

SUITE = "bookworm"
COMMON = (
    "systemd-sysv,udev,dbus,kmod,zstd,e2fsprogs,fio,iproute2,procps,perl,openssh-server,"
    "containerd,python3,python3-cffi-backend,python3-cryptography,python3-jinja2,python3-requests,python3-yaml"
)
KERNEL = "linux-image-cloud-amd64"
PACKAGES = {"ext4": f"{COMMON},initramfs-tools,{KERNEL}", "xfs": f"{COMMON},dracut,linux-base,xfsprogs"}
VARIANTS = tuple(PACKAGES)
# Counted up when the code below makes another image of the same parts.
RECIPE = 2
# Made by the platform's image build; read in part by the agent.
MODELS = [(f"model-{number}.bin", 32 << 20) for number in range(8)]
# The tree that is copied to the second disk.
IMAGES = [("base", 100 << 20), ("extra", 200 << 20)]


def cache_root():
    return pathlib.Path(os.environ.get("EBS_PREWARM_CACHE", "/var/cache/ebs-prewarm-boot-lab"))


def digest(*parts):
    """Of texts, of files and of all files below directories."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, pathlib.Path):
            paths = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
            for path in paths:
                if "__pycache__" not in path.parts:
                    sha.update(f"{path.name} {path.stat().st_mode & 0o777:o}\0".encode())
                    sha.update(path.read_bytes())
        else:
            sha.update(f"{part}\0".encode())
    return sha.hexdigest()[:16]


def made_once(path, make):
    """`make` fills a directory beside `path`, which then gets its name."""
    if not path.exists():
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(path)
    os.utime(path)
    return path


def forget_old(root, prefix, keep):
    """A recipe that changed leaves its image behind: only the last few are worth their space."""
    made = sorted(root.glob(f"{prefix}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in made[keep:]:
        shutil.rmtree(path, ignore_errors=True)


@dataclass
class Image:
    """A built image."""

    variant: str
    directory: pathlib.Path
    binary: pathlib.Path
    initrds: dict = field(default_factory=dict)

    @property
    def disk(self):
        return self.directory / "disk.raw"

    @property
    def kernel(self):
        return self.directory / "vmlinuz"

    @property
    def root(self):
        return self.directory / "root"


def base(variant):
    """What debootstrap makes, without anything of ours."""
    packages = PACKAGES[variant]
    root = cache_root()

    def make(directory):
        if not shutil.which("debootstrap"):
            raise LabError("failed to find `debootstrap`: apt-get install debootstrap qemu-system-x86")
        say(f"debootstrap of {SUITE} for {variant}: some minutes, once")
        packages_dir = root / "packages"
        packages_dir.mkdir(parents=True, exist_ok=True)
        mirror = os.environ.get("EBS_PREWARM_MIRROR", "")
        privately(
            'debootstrap --variant=minbase --cache-dir="$CACHE" --include="$PACKAGES" $SUITE "$ROOT" $MIRROR',
            CACHE=packages_dir, PACKAGES=packages, SUITE=SUITE, ROOT=directory / "root", MIRROR=mirror,
        )
        if KERNEL not in packages:
            add_kernel(directory / "root", root / "apt")

    path = made_once(root / f"base-{variant}-{digest(SUITE, packages)}", make)
    forget_old(root, f"base-{variant}", 2)
    return path / "root"


def add_kernel(root, apt):
    """debootstrap takes the first of alternatives, and the kernel's are initramfs-tools or another: dracut is there first."""
    archive = debian.Archive(apt, [SUITE])
    newest = archive.about(KERNEL, SUITE)["Depends"].split(" ")[0]
    with archive.fetched(newest, SUITE) as package:
        shutil.copy(package, root / "tmp/kernel.deb")
    # An initramfs is made later, when its parts are there.
    privately('mount -t proc proc "$ROOT/proc"; INITRD=No chroot "$ROOT" dpkg --install /tmp/kernel.deb', ROOT=root)
    (root / "tmp/kernel.deb").unlink()


def scripts_of(variant):
    """The parts of the repository that an installation puts into a system."""
    initramfs = {"ext4": "initramfs-tools", "xfs": "dracut"}[variant]
    return [REPOSITORY / "scripts" / initramfs, REPOSITORY / "scripts" / "systemd"]


def build(variant, binary, full):
    """The image with the node's work and with `binary` as its /usr/sbin/ebs-prewarm; and the full program beside, which
    tells what the warming did."""
    below = base(variant)
    recipe = [RECIPE, DISK_BYTES, MODELS, IMAGES, NODE, binary, full, *scripts_of(variant)]

    def make(directory):
        say(f"image {variant}: the node's work on top of the base")
        root = directory / "root"
        run("cp", "-a", "--reflink=auto", below, root)
        lay(variant, root, binary, full)
        kernel = sorted((root / "boot").glob("vmlinuz-*"))[-1]
        shutil.copy(kernel, directory / "vmlinuz")
        say(f"image {variant}: initramfs without ebs-prewarm")
        initramfs(variant, root, directory / "initrd.plain", None, None)
        say(f"image {variant}: filesystem")
        made = directory / "disk.made"
        make_disk(variant, root, made)
        # What mkfs reserves without writing it shows as a hole until somebody has read it. In a copy it is one for good,
        # as in a snapshot.
        run("cp", "--sparse=auto", made, directory / "disk.raw")
        made.unlink()
        run("sync", directory / "disk.raw")

    path = made_once(cache_root() / f"image-{variant}-{digest(variant, below.parent.name, *recipe)}", make)
    forget_old(cache_root(), f"image-{variant}", 2)
    return Image(variant, path, binary, {"plain": path / "initrd.plain"})


def drop_in(root, unit, text):
    """What the lab has otherwise in a unit."""
    path = root / f"etc/systemd/system/{unit}.service.d/node.conf"
    path.parent.mkdir()
    path.write_text(text)


def lay(variant, root, binary, full):
    """What a platform's image build would do."""
    write = lambda path, text: (root / path).write_text(text)
    write("etc/machine-id", uuid.UUID(FS_UUID).hex + "\n")
    write("etc/hostname", "node\n")
    options = {"ext4": "defaults", "xfs": "defaults"}[variant]
    write("etc/fstab", f"PARTUUID={PART_UUID} / {variant} {options} 0 1\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    for name in ("usr/local/lib/node", "etc/ebs-prewarm"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(binary, root / "usr/sbin/ebs-prewarm")
    shutil.copy(full, root / "usr/local/lib/node/ebs-prewarm")
    for script in (NODE / "bin").iterdir():
        shutil.copy(script, root / "usr/local/lib/node" / script.name)
    units = [*(NODE / "units").iterdir(), *(REPOSITORY / "scripts/systemd").glob("*.service")]
    if variant == "xfs":
        # The module's own goes into the initramfs; systemd looks for it in the system when the root has changed.
        units.append(REPOSITORY / "scripts/dracut/90ebs-prewarm/ebs-prewarm-initramfs.service")
    for unit in units:
        shutil.copy(unit, root / "etc/systemd/system" / unit.name)
    # What the platform says of itself: from when on its node is ready.
    until = "[Service]\nEnvironment=UNTIL=node-ready.service\n"
    drop_in(root, "ebs-prewarm-record", until)
    drop_in(
        root, "ebs-prewarm-effect",
        until + "ExecStart=\nExecStart=/usr/local/lib/node/ebs-prewarm --log info effect --until-unit ${UNTIL} "
        "--for 15min --journal /run/ebs-prewarm --report /run/ebs-prewarm/effect.json --recording /run/ebs-prewarm/effect.rec\n"
    )
    # Boots that warm the rest do it at once: the hardest for what is to stand back. The profile is in the initramfs
    # alone, which leaves a copy there: in the image it would be another image.
    drop_in(
        root, "ebs-prewarm-rest",
        "[Unit]\nConditionFileNotEmpty=\n[Service]\nExecStart=\n"
        "ExecStart=/usr/sbin/ebs-prewarm warm --profile /run/node-boot.bin --rest allocated --journal /run/ebs-prewarm "
        "--stamp /var/lib/ebs-prewarm --report /run/ebs-prewarm/rest.json\n"
    )
    enabled = sorted(unit.name for unit in (NODE / "units").iterdir() if "@" not in unit.name)
    enabled += ["ebs-prewarm.service", "ebs-prewarm-record.service", "ebs-prewarm-effect.service"]
    enabled += [f"node-check@{number}.service" for number in range(1, 5)]
    # Without a network and for minutes only; and the console is the lab's.
    masked = [
        "serial-getty@ttyS0.service", "getty@tty1.service", "apt-daily.timer", "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer", "e2scrub_reap.service",
    ]
    run("systemctl", f"--root={root}", "enable", *enabled)
    run("systemctl", f"--root={root}", "mask", *masked)
    bake(root)


def fill(path, size, seed):
    """A file that does not compress and has no holes; the same one each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            piece = min(1 << 20, size - at)
            file.write(hashlib.shake_128(f"{seed} {at}".encode()).digest(piece))


def bake(root):
    """Large files, as a platform bakes them in."""
    for name, size in MODELS:
        fill(root / "var/lib/node/models" / name, size, name)
    for name, total in IMAGES:
        # Sizes as in container layers: a few large files, many small ones.
        sizes, left = [], total
        shares = [20 << 20, 6 << 20, 1 << 20, 300 << 10, 40 << 10, 8 << 10]
        while left > 0:
            size = min(left, shares[len(sizes) % len(shares)])
            sizes.append(size)
            left -= size
        for number, size in enumerate(sizes):
            fill(root / f"var/lib/node/images/{name}/layer-{number % 7}/{number:04}.blob", size, f"{name} {number}")


def script_after_ours(line):
    """For initramfs-tools: files to lay over an initramfs, so that a line of shell runs after our script."""
    scripts = "scripts/init-top"
    script = f"#!/bin/sh\n[ \"$1\" != prereqs ] || exit 0\n{line}\nexit 0\n"
    order = "".join(
        f'/{scripts}/{name} "$@"\n[ -e /conf/param.conf ] && . /conf/param.conf\n'
        for name in ("ebs-prewarm", "after-ours", "udev")
    )
    return {f"{scripts}/after-ours": (script.encode(), 0o755), f"{scripts}/ORDER": (order.encode(), 0o644)}


def initramfs(variant, root, output, binary, profile):
    """The distribution's own tool makes it, over a copy of the image's root that is thrown away.

    With `binary` our hook or module is installed, with `profile` there is one to take in.
    """
    work = output.with_name(output.name + ".work")
    shutil.rmtree(work, ignore_errors=True)
    for name in ("upper", "work", "root"):
        (work / name).mkdir(parents=True)
    install = REPOSITORY / "scripts" / {"ext4": "initramfs-tools", "xfs": "dracut"}[variant]
    script = """
        mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$WORK/upper,workdir=$WORK/work" "$WORK/root"
        cd "$WORK/root"
        mount -t proc proc proc
        mount --bind /dev dev
        if [ -n "$BINARY" ]; then
            install -m 755 "$BINARY" usr/sbin/ebs-prewarm
            case $VARIANT in
            ext4) cp -r "$INSTALL/hooks" "$INSTALL/scripts" usr/share/initramfs-tools/ ;;
            xfs) cp -r "$INSTALL/90ebs-prewarm" usr/lib/dracut/modules.d/ ;;
            esac
        fi
        rm -f etc/ebs-prewarm/boot.bin
        if [ -n "$PROFILE" ]; then install -m 644 "$PROFILE" etc/ebs-prewarm/boot.bin; fi
        kernel=$(ls lib/modules | tail -n 1)
        case $VARIANT in
        ext4) chroot . mkinitramfs -o /tmp/initrd "$kernel" ;;
        xfs) chroot . dracut --force --no-hostonly --kver "$kernel" /tmp/initrd ;;
        esac
        cp tmp/initrd "$OUTPUT"
    """
    privately(
        script, LOWER=root, WORK=work, BINARY=binary or "", PROFILE=profile or "", INSTALL=install, VARIANT=variant,
        OUTPUT=output,
    )
    shutil.rmtree(work)
    return output


def partition_bytes():
    return DISK_BYTES - PARTITION_START - TAIL_BYTES


def write_table(disk, start, size=None):
    size = size or partition_bytes()
    table = (
        f"label: gpt\nlabel-id: {DISK_UUID}\n"
        f"start={start // 512}, size={size // 512}, type=linux, uuid={PART_UUID}, name=root\n"
    )
    run("sfdisk", "--quiet", disk, stdin=table)


def make_ext4(root, disk, size, options=""):
    """Fills the partition in place."""
    run(
        "mkfs.ext4", "-q", "-F", "-U", FS_UUID, "-L", "root", "-d", root,
        "-E", f"offset={PARTITION_START},hash_seed={FS_UUID},root_owner=0:0{options}", disk, f"{size // 1024}k",
    )


def make_disk(variant, root, disk):
    """A GPT with one partition, and the filesystem with the tree in it."""
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    write_table(disk, PARTITION_START)
    size = partition_bytes()
    if variant == "ext4":
        make_ext4(root, disk, size)
        return
    # No mkfs.xfs fills a filesystem from a tree as it is. The loop device starts at the partition: kernels without
    # partition tables can do that too. Detached lazily, it goes away with the mount at the end.
    script = """
        device=$(losetup --find --show --offset "$START" --sizelimit "$SIZE" "$DISK")
        trap 'umount "$PLACE" 2>/dev/null || true; losetup --detach "$device"' EXIT
        mkfs.xfs -q -m uuid="$UUID" -L root "$device"
        mount "$device" "$PLACE"
        cp -a "$ROOT/." "$PLACE/"
        umount "$PLACE"
    """
    place = disk.with_name("place")
    place.mkdir()
    privately(script, START=PARTITION_START, SIZE=size, DISK=disk, UUID=FS_UUID,
              PLACE=place, ROOT=root)
    place.rmdir()
