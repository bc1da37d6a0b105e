"""A guest of the kernel matrix: a kernel, an initramfs of a few files, cold disks, and a line to the host.

Holds: the disks are read-only for the guest; QEMU and the volumes are gone when `run` returns, also where a read never
ends; a guest that says nothing for long is a result, not a hang.
"""

import contextlib
import os
import pathlib
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

from .cold import ColdVolume
from .cpio import archive
from .image import HERE
from .machine import CHEAP, SERIAL, accelerator, unpack
from .shell import LabError, run

OUTBOX_BYTES = 16 << 20
CONSOLE_BYTES_SHOWN = 3000
# A check takes a few seconds; a busy host may need several times that.
SILENCE_S = 120
# As long as reads come, units hydrate, hundreds a second.
HYDRATION_S = 30
# By serial number: a kernel's names for them are not sure.
DISKS = {"main": SERIAL, "bad": SERIAL[:-1] + "1"}
# A disk whose reads take a minute is waited for, as EBS's users are told to.
WORDS = ["console=ttyS0", "quiet", "panic=-1", "nvme_core.io_timeout=4294967295", *CHEAP]
# As in `.ci/static`.
STATIC_TARGETS = [("x86_64-unknown-linux-musl", []), ("x86_64-unknown-linux-gnu", ["-Ctarget-feature=+crt-static"])]


@dataclass
class Ended:
    """What one guest came to."""

    why: str = ""
    console: str = ""
    # By check: what the emulator had seen when it was over.
    stats: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    host_s: float = 0.0

    def text(self, name):
        return self.files.get(name, b"").decode(errors="replace")


def confine(directory):
    """Makes `guest/confine.rs`, static, for the target that there is."""
    path, problems = directory / "confine", []
    for target, flags in STATIC_TARGETS:
        try:
            run("rustc", "--edition", "2024", "-O", "-Cpanic=abort", "-Cstrip=symbols", "--target", target, *flags,
                "-o", path, HERE / "guest/confine.rs")
            return path
        except LabError as error:
            problems.append(str(error))
    raise LabError("\n".join(problems))


def initramfs(parts, checks):
    """`parts` is {path: file on the host}; `checks` is the script that the guest runs."""
    directories = ("bin", "dev", "proc", "sys", "mnt", "out", "profiles")
    files = {name: (None, 0o755) for name in directories}
    for path, source in parts.items():
        files[path] = (source.read_bytes(), 0o755)
    for name, path in (("init", "init"), ("workload", "bin/workload")):
        files[path] = ((HERE / "guest" / name).read_bytes(), 0o755)
    files["checks"] = (checks.encode(), 0o644)
    return archive(files)


def command(kernel, initrd, words, processors, volumes, outbox, console):
    cold = "if=none,format=raw,readonly=on,cache=none,aio=threads"
    words = [*WORDS, *words, *(f"{name.upper()}={serial}" for name, serial in DISKS.items()), "OUTBOX=outbox"]
    drives = []
    for name, volume in volumes.items():
        drives += ["-drive", f"file={volume},id={name},{cold}", "-device", f"nvme,serial={DISKS[name]},drive={name}"]
    return [
        "qemu-system-x86_64", *accelerator(), "-smp", str(processors), "-m", "1024", "-display", "none",
        "-nodefaults", "-no-reboot", "-monitor", "none",
        "-serial", f"file:{console}", "-serial", "stdio",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", " ".join(words), *drives,
        "-drive", f"file={outbox},id=outbox,format=raw,cache=unsafe,if=none",
        "-device", "nvme,serial=outbox,drive=outbox",
    ]


def start(line, directory):
    try:
        errors = (directory / "qemu").open("wb")
        return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    except FileNotFoundError as error:
        raise LabError("failed to find `qemu-system-x86_64`: apt-get install qemu-system-x86") from error


def boot(kernel, initrd, words, processors, binary, disks):
    """Boots and follows to the end. `disks` is {name: (image, model, what is set in it)}."""
    started = time.monotonic()
    ended = Ended()
    with tempfile.TemporaryDirectory(prefix="ebs-prewarm-guest-") as scratch, contextlib.ExitStack() as stack:
        scratch = pathlib.Path(scratch)
        outbox, console = scratch / "outbox", scratch / "console"
        outbox.touch()
        os.truncate(outbox, OUTBOX_BYTES)
        (scratch / "initrd").write_bytes(initrd)
        volumes = {name: stack.enter_context(ColdVolume(binary, image, model, 1, sets))
                   for name, (image, model, sets) in disks.items()}
        paths = {name: volume.volume for name, volume in volumes.items()}
        line = command(kernel, scratch / "initrd", words, processors, paths, outbox, console)
        process = start(line, scratch)
        try:
            ended.why = follow(process, volumes, ended) or ended.why
        finally:
            end(process, volumes)
        ended.console = console.read_text(errors="replace") + (scratch / "qemu").read_text(errors="replace")
        ended.files = unpack(outbox)
    ended.host_s = time.monotonic() - started
    return ended


def end(process, volumes):
    """A process with a read that stalls goes only when that read has an answer: an emulator that is gone gives one."""
    process.kill()
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        for volume in volumes.values():
            os.kill(volume.stats()["daemon_pid"], signal.SIGKILL)
        process.wait()


def follow(process, volumes, ended):
    """Does what the guest asks for; returns why it did not come to its end, or nothing."""
    heard = b""
    while True:
        if not select.select([process.stdout], [], [], SILENCE_S)[0]:
            return f"it said nothing for {SILENCE_S} s"
        piece = os.read(process.stdout.fileno(), 4096)
        if not piece:
            return f"QEMU ended with exit code {process.wait()}"
        *lines, heard = (heard + piece).split(b"\n")
        for line in lines:
            match line.decode(errors="replace").split():
                case ["ask", "end"]:
                    return ""
                case ["ask", "took", check, disk]:
                    ended.stats[check] = volumes[disk].stats()
                case ["ask", "hydrated", disk, units]:
                    if not hydrated(volumes[disk], int(units)):
                        # The guest goes on: what came of the other checks is worth having.
                        ended.why = f"not {units} units of disk `{disk}` hydrated, and no more in {HYDRATION_S} s"
                case ["ask", "reset"]:
                    for volume in volumes.values():
                        volume.reset()
                case _:
                    continue
            process.stdin.write(b"ok\n")
            process.stdin.flush()


def hydrated(volume, units):
    """Waits until so many units have, as long as more and more do."""
    before, limit = 0, time.monotonic() + HYDRATION_S
    while (now := volume.stats()["counters"]["hydrated"]) < units:
        if now > before:
            before, limit = now, time.monotonic() + HYDRATION_S
        elif time.monotonic() > limit:
            return False
        time.sleep(0.1)
    return True
