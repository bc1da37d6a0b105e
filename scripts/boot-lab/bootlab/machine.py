"""A machine: QEMU with a cold NVMe disk for its root, a fast second disk, and a disk that results come out on.

Holds: the process is gone when `boot` returns; the root disk's image is never written (writes go to a snapshot that is
thrown away); a boot that does not get ready in time is a result, not a hang.
"""

import io
import json
import os
import pathlib
import re
import select
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass, field

from .image import PART_UUID
from .shell import LabError

SERIAL = "vol0123456789abcdef0"
PROCESSORS = 2
MEMORY_MIB = 2048
FAST_BYTES = 1 << 30
OUTBOX_BYTES = 64 << 20
CONSOLE_BYTES_KEPT = 64 << 10
# Between ready and power off: the warmer ends, results are written.
COLLECT_S = 120


# What costs a translated processor much and a boot's reads nothing: mitigations, an unsteady clock's fallback, checks.
CHEAP = ["mitigations=off", "tsc=reliable", "clocksource=tsc", "no5lvl", "audit=0", "nowatchdog", "cryptomgr.notests"]


@dataclass
class Boot:
    """What one boot came to. Times are seconds since the kernel started."""

    ready_s: float | None
    why: str
    console: str
    stats: dict | None = None
    files: dict = field(default_factory=dict)

    def json(self, name):
        try:
            return json.loads(self.files[name])
        except (KeyError, ValueError):
            return None

    def text(self, name):
        return self.files.get(name, b"").decode(errors="replace")


def accelerator():
    """Translation, which works everywhere and where two processors of a 6.1 kernel are known to work; or what the
    user knows to work here: a /dev/kvm that is there may still not run a guest. A plain processor: wide vector
    instructions are slow in translation, and each feature more makes udev load modules.

    Little room for what is translated, so that it is thrown away twice or so in a boot. Each store to a page that was
    translated once is slow until the last of that is overwritten: where clearing pages met those that the initramfs
    had left, and that was chance, it took a boot of XFS and dracut 10 to 12 s instead of 4 to 6."""
    if os.environ.get("EBS_PREWARM_BOOT_LAB_ACCEL", "tcg") == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=128", "-cpu", "qemu64"]


def memory():
    """All of the machine's memory, there before it starts. A host that is a guest itself gives free memory back to its
    own host: to touch 2 GiB took 0.3 s right after they were freed, 2.8 s later, and 25 s for the first time."""
    backend = f"memory-backend-ram,id=memory,size={MEMORY_MIB}M,prealloc=on,prealloc-threads={PROCESSORS}"
    return ["-m", str(MEMORY_MIB), "-object", backend, "-machine", "memory-backend=memory"]


def disk_in_memory(size):
    """A disk that waits for nothing. Written once, so that its memory is there, too."""
    disk = os.fdopen(os.memfd_create("fast"), "wb", buffering=0)
    zeros = bytes(1 << 20)
    for _ in range(size // len(zeros)):
        disk.write(zeros)
    return disk


def command(kernel, initrd, words, volume, fast, outbox, device="nvme", aio="threads"):
    cold = f"file={volume},if=none,id=root,format=raw,snapshot=on,cache=none,aio={aio}"
    devices = {"nvme": f"nvme,serial={SERIAL},drive=root", "virtio": f"virtio-blk-pci,serial={SERIAL[:20]},drive=root"}
    plain = "format=raw,cache=unsafe,if=none"
    append = [f"root=PARTUUID={PART_UUID}", "ro", "console=ttyS0", "quiet", "systemd.show_status=0", *CHEAP, *words]
    return [
        "qemu-system-x86_64", *accelerator(), "-smp", str(PROCESSORS), "-name", "node,debug-threads=on", *memory(), "-display", "none", "-monitor", "none",
        "-serial", "stdio", "-nodefaults", "-no-reboot", "-rtc", "base=2024-01-01",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", " ".join(append),
        "-drive", cold, "-device", devices[device],
        "-drive", f"file={fast},id=fast,{plain}", "-device", "virtio-blk-pci,drive=fast,serial=fast",
        "-drive", f"file={outbox},id=outbox,{plain}", "-device", "virtio-blk-pci,drive=outbox,serial=outbox",
        "-device", "virtio-rng-pci",
    ]


def boot(image, initrd, words, cold, device="nvme", timeout_s=600):
    """Boots from a mounted cold volume until the node is ready and has handed out its files."""
    with tempfile.TemporaryDirectory(prefix="ebs-prewarm-machine-") as scratch, disk_in_memory(FAST_BYTES) as fast:
        scratch = pathlib.Path(scratch)
        outbox = scratch / "outbox"
        with outbox.open("wb") as file:
            file.truncate(OUTBOX_BYTES)
        line = command(image.kernel, initrd, words, cold.volume, f"/proc/self/fd/{fast.fileno()}", outbox, device)
        started = time.monotonic()
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(os.environ, TMPDIR=str(scratch)), pass_fds=(fast.fileno(),),
        )
        try:
            pin(process)
            done = watch(process, cold, started, timeout_s)
        except FileNotFoundError as error:
            raise LabError("failed to find `qemu-system-x86_64`: apt-get install qemu-system-x86") from error
        finally:
            process.kill()
            process.wait()
        done.files = unpack(outbox)
        return done


def pin(process, timeout_s=120):
    """Gives each of the machine's processors one of ours. Where both are put on one for a while, each spins for what the
    other holds: boots differed by a quarter for that."""
    ours = sorted(os.sched_getaffinity(0))
    limit = time.monotonic() + timeout_s
    pinned = set()
    while len(pinned) < PROCESSORS and time.monotonic() < limit and process.poll() is None:
        for task in pathlib.Path(f"/proc/{process.pid}/task").glob("*"):
            try:
                name = re.match(r"CPU (\d+)/", (task / "comm").read_text())
                if name and name[1] not in pinned:
                    os.sched_setaffinity(int(task.name), {ours[int(name[1]) % len(ours)]})
                    pinned.add(name[1])
            except OSError:
                continue
        time.sleep(0.02)


def watch(process, cold, started, timeout_s):
    """Follows the console until the machine is off."""
    console, limit = "", started + timeout_s
    result = Boot(None, "", "")
    while True:
        left = limit - time.monotonic()
        if left <= 0:
            result.why = "not ready in time" if result.ready_s is None else "did not switch off"
            break
        if not select.select([process.stdout], [], [], min(left, 1.0))[0]:
            continue
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            if result.ready_s is None:
                result.why = f"the machine ended (exit code {process.wait()})"
            break
        console = (console + piece.decode(errors="replace"))[-CONSOLE_BYTES_KEPT:]
        found = re.search(r"BOOTLAB ready ([0-9.]+)\r?\n", console)
        if found and result.ready_s is None:
            result.ready_s = float(found.group(1))
            # Before what comes after ready touches more.
            result.stats = cold.stats()
            limit = time.monotonic() + COLLECT_S
    result.console = console
    if result.stats is None:
        result.stats = cold.stats()
    return result


def unpack(outbox):
    """The files of the tar that the node wrote; nothing where it did not get that far."""
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(outbox.read_bytes())) as tar:
            for member in tar:
                if member.isfile():
                    files[member.name.removeprefix("./")] = tar.extractfile(member).read()
    except tarfile.TarError:
        pass
    return files
