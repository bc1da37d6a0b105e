"""The command `kernels`: for each kernel a guest with cold disks, what it ran, whether it holds, and a table.

Holds: a check that did not run does not hold. The judging is in `checks`, the guest in `guest`.
"""

import argparse
import json
import pathlib
import re
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from . import checks, debian, guest, image
from .main import binaries
from .shell import LabError, run, say

# Debian's release of each kernel.
RELEASES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}
PACKAGE = "linux-image-cloud-amd64"
# Its busybox has what the guests' scripts use.
BUSYBOX = ("busybox-static", "bookworm")
RECIPE = 2
TREE_SIZES = [8 << 10, 40 << 10, 300 << 10, 1 << 20, 16 << 10, 2 << 20] * 3
NOTHING = "nothing came of it: the guest did not get so far"
# What a kernel writes when it finds a fault in itself.
FAULTS = re.compile(
    r"^.*(?:WARNING:|BUG:|Oops|general protection|blocked for more than|Kernel panic|UBSAN|KASAN).*$", re.MULTILINE)


@dataclass
class Kernel:
    """A Debian kernel; the version is that of its series."""

    series: str
    release: str
    package: str
    path: pathlib.Path

    @property
    def version(self):
        return tuple(int(number) for number in self.series.split("."))


def arguments(argv):
    parser = argparse.ArgumentParser(prog="kernels", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--kernel", default=",".join(RELEASES), help="of: " + ", ".join(RELEASES))
    add("--checks", default="", help="some checks alone, by name")
    add("--quick", action="store_true", help="one guest for each kernel, with two processors")
    add("--at-once", type=int, default=3, help="guests that run at the same time (3)")
    add("--json", action="store_true", help="print the results as JSON instead of a table")
    add("--update", action="store_true", help="fetch the kernels of today's archive, not those of the cache")
    add("--output", type=pathlib.Path, default=image.REPOSITORY / "target/kernels", help="folder for results")
    options = parser.parse_args(argv)
    options.kernel = listed(parser, "--kernel", options.kernel, RELEASES)
    known = dict.fromkeys(check.name for boot in checks.BOOTS for check in boot.checks)
    options.checks = listed(parser, "--checks", options.checks or ",".join(known), known)
    return options


def listed(parser, option, text, known):
    """The names in a list, each of which must be known: one that is not would leave nothing to hold."""
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        parser.error(f"failed to find `{','.join(unknown)}` for {option}: there are {', '.join(known)}")
    return names


class Shelf:
    """What comes from the archive, kept in the cache; the archive is asked only for what is not there."""

    def __init__(self, options):
        self.root, self.update, self.archive = image.cache_root(), options.update, None
        self.releases = sorted({BUSYBOX[1], *(RELEASES[series] for series in options.kernel)})

    def opened(self):
        if self.archive is None:
            say("lists of Debian's packages")
            self.archive = debian.Archive(self.root / "apt", self.releases)
        return self.archive

    def kernel(self, series):
        def make(directory):
            archive, release = self.opened(), RELEASES[series]
            # `linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)`
            name = archive.about(PACKAGE, release)["Depends"].split(",")[0].split()[0]
            about = archive.about(name, release)
            say(f"{name} {about['Version']}")
            archive.take(name, release, "boot/vmlinuz-*", directory / "vmlinuz")
            text = json.dumps({"release": name.removeprefix("linux-image-"), "package": about["Version"]})
            (directory / "about.json").write_text(text)

        path = self.made(f"kernel-{series}", make, PACKAGE, RELEASES[series])
        return Kernel(series, path=path / "vmlinuz", **json.loads((path / "about.json").read_text()))

    def busybox(self):
        make = lambda directory: self.opened().take(*BUSYBOX, "bin/busybox", directory / "busybox")
        return self.made("busybox", make, *BUSYBOX) / "busybox"

    def made(self, name, make, *recipe):
        path = self.root / f"{name}-{image.digest(*recipe)}"
        if self.update:
            shutil.rmtree(path, ignore_errors=True)
        return image.made_once(path, make)


def disk():
    """One ext4 partition with some files. It has no holes: those would not be in a snapshot."""
    size = checks.DISK_UNITS * checks.UNIT

    def make(directory):
        say("disk of the guests")
        for number in range(4):
            for turn, length in enumerate(TREE_SIZES):
                image.fill(directory / f"root/tree/{number}/{turn}", length, f"{number} {turn}")
        path = directory / "disk.holes"
        image.fill(path, size, "disk")
        image.write_table(path, image.PARTITION_START, size - image.PARTITION_START - image.TAIL_BYTES)
        image.make_ext4(directory / "root", path, size - image.PARTITION_START - image.TAIL_BYTES, ",nodiscard")
        # mkfs leaves holes where it wants zeros.
        run("cp", "--sparse=never", path, directory / "disk.raw")
        path.unlink()
        shutil.rmtree(directory / "root")

    recipe = [RECIPE, size, *TREE_SIZES, pathlib.Path(image.__file__)]
    path = image.made_once(image.cache_root() / f"kernels-disk-{image.digest(*recipe)}", make)
    image.forget_old(image.cache_root(), "kernels-disk", 2)
    return path / "disk.raw"


class Matrix:
    """One run: what it was asked for, what it has made."""

    def __init__(self, options):
        self.options = options
        self.output = options.output.resolve()
        self.output.mkdir(parents=True, exist_ok=True)
        self.host, static = binaries()
        self.shelf = Shelf(options)
        self.disk = disk()
        self.parts = {
            "bin/busybox": self.shelf.busybox(), "bin/ebs-prewarm": static, "bin/confine": guest.confine(self.output),
            **{f"profiles/{name}.bin": self.profile(name, *profile) for name, profile in checks.PROFILES.items()},
        }

    def profile(self, name, units, length):
        """Compiled, of a piece of each unit, in the order given."""
        ranges, recording = self.output / f"{name}.txt", self.output / f"{name}.rec"
        people, compiled = self.output / f"{name}.yaml", self.output / f"{name}.bin"
        ranges.write_text("".join(f"{unit * checks.UNIT + (64 << 10)} {length}\n" for unit in units))
        profile = [self.host, "profile"]
        run(*profile, "import", "--format", "list", "--device", self.disk, "-o", recording, ranges)
        run(*profile, "build", "--order", "history", "-o", people, recording)
        run(*profile, "compile", "-o", compiled, people)
        return compiled

    def chosen(self, kernel, boot):
        """Nothing where this guest is not for this kernel, or has none of the checks that were asked for."""
        if kernel.version < boot.since or (self.options.quick and not boot.quick):
            return []
        return [check for check in boot.checks if kernel.version >= check.since and check.name in self.options.checks]

    def run(self, kernel, boot):
        """One guest and its checks."""
        chosen = self.chosen(kernel, boot)
        disks = {name: (self.disk, *how) for name, how in checks.VOLUMES.items()}
        initrd = guest.initramfs(self.parts, checks.script(chosen))
        how = (kernel.path, initrd, boot.words_for(kernel.version), boot.processors, self.host, disks)
        ended = guest.boot(*how)
        # Seen once with 5.10, under translation: not a word on the console, and no check over. What hangs again has hung.
        if ended.why and not ended.console.strip() and not ended.stats and not ended.files:
            say(f"{kernel.release}, {boot.name}: {ended.why}, and no word before; once more")
            ended = guest.boot(*how)
        place = self.output / f"{kernel.series}-{boot.name.replace(' ', '-')}"
        self.keep(place, ended)
        seen = {check.name: self.seen(place, check, ended) for check in chosen}
        results = [judged(kernel, check, seen[check.name]) for check in chosen]
        apart_s, too_far = clocks(seen)
        faults = FAULTS.findall(ended.console + ended.text("dmesg"))
        result = {
            "kernel": kernel.release, "package": kernel.package, "series": kernel.series, "guest": boot.name,
            "processors": boot.processors, "host_s": round(ended.host_s, 1),
            "wrong": [*filter(None, [ended.why]), *too_far, *sorted(set(faults))],
            **rings(ended), "clocks_apart_s": apart_s, "checks": results,
        }
        broken = [check["check"] for check in results if check["wrong"]]
        say(f"{kernel.release}, {boot.name}: {len(results) - len(broken)} of {len(results)} checks hold, "
            f"{ended.host_s:.0f} s" + "".join(f"; {text}" for text in result["wrong"]))
        return result

    def keep(self, place, ended):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        files = {**ended.files, "console": ended.console.encode()}
        files |= {f"{name}.stats.json": json.dumps(stats).encode() for name, stats in ended.stats.items()}
        for name, content in files.items():
            (place / name).write_bytes(content)

    def seen(self, place, check, ended):
        """`None` where the check did not come to its end, or what came of it not out of the guest."""
        if check.name not in ended.stats or f"{check.name}.code" not in ended.files:
            return None
        recording, report = place / f"{check.name}.rec", ended.files.get(f"{check.name}.json")
        compared = None
        if recording.exists():
            stats = place / f"{check.name}.stats.json"
            compared = json.loads(run(self.host, "--json", "lab", "compare", stats, recording))
        return checks.Seen(
            ended.text(f"{check.name}.code").strip(), ended.text(f"{check.name}.out"), ended.text(f"{check.name}.err"),
            json.loads(report) if report else None, ended.stats[check.name], compared,
        )


def judged(kernel, check, seen):
    result = {"check": check.name, "wrong": [], "shown": "", "engine": None}
    if seen is None:
        return {**result, "wrong": [NOTHING]}
    try:
        wrong, shown = check.judge(kernel.version, seen)
    except (LabError, ValueError, KeyError) as error:
        return {**result, "wrong": [f"failed to judge it: {error}"]}
    return {**result, "wrong": wrong, "shown": shown, "engine": (seen.report or {}).get("engine")}


def rings(ended):
    """What the engine said of the rings that it was given and refused, with nothing held back from it."""
    said = ended.text("touch.err")
    refused = re.findall(r"io_uring set-up `([^`]+)` is refused: (.+)", said)
    waits = re.findall(r"waits for a time by (.+)", said)
    return {"refused_set_ups": [{"set_up": name, "error": error} for name, error in refused],
            "waits_by": waits[0] if waits else None}


def clocks(seen):
    """How far apart two recordings of one boot are that were made with two clocks, and whether that is too far."""
    both = seen.get("boot-instance"), seen.get("boot-ring")
    apart_s = checks.apart_s(*both) if all(both) else None
    too_far = apart_s is not None and apart_s > checks.CLOCKS_APART_S_MAX
    return apart_s, [f"two recordings of this boot are {apart_s} s apart"] if too_far else []


def table(results):
    """For each kind of guest: a row for each check, a column for each kernel."""
    parts = []
    for name in dict.fromkeys(result["guest"] for result in results):
        guests = [result for result in results if result["guest"] == name]
        rows = [[name, *(f"{guest['series']} ({guest['package']})" for guest in guests)], *ring_rows(guests)]
        for check in dict.fromkeys(check["check"] for guest in guests for check in guest["checks"]):
            rows.append([check, *(cell(guest, check) for guest in guests)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(guests) + 1)]
        parts += ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in [*rows, []]]
    return "\n".join(parts).strip()


def cell(guest, name):
    check = next((check for check in guest["checks"] if check["check"] == name), None)
    if check is None:
        return "-"
    return "DOES NOT HOLD" if check["wrong"] else check["shown"]


def ring_rows(guests):
    """What the engine was given, where it ran with nothing held back from it."""
    of = lambda guest: next((check["engine"] for check in guest["checks"] if check["check"] == "touch"), None)
    engines = [of(guest) for guest in guests]
    if not any(engines):
        return []
    return [
        ["ring", *((engine or "-").removeprefix("io_uring (").split(";")[0] for engine in engines)],
        ["set-ups refused before", *(str(len(guest["refused_set_ups"])) for guest in guests)],
    ]


def wrongs(result):
    """What does not hold, a line each; where the guest itself is at fault, not each check that it did not get to."""
    lines = [("guest", reason) for reason in result["wrong"]]
    lines += [(check["check"], reason) for check in result["checks"] for reason in check["wrong"]
              if not (lines and reason == NOTHING)]
    return [f"{result['kernel']}, {result['guest']}: {name}: {reason}" for name, reason in lines]


def work(options):
    started = time.monotonic()
    matrix = Matrix(options)
    kernels = [matrix.shelf.kernel(name) for name in options.kernel]
    guests = [(kernel, boot) for kernel in kernels for boot in checks.BOOTS if matrix.chosen(kernel, boot)]
    # They wait for their disks more than they compute.
    with ThreadPoolExecutor(options.at_once) as pool:
        results = list(pool.map(lambda guest: matrix.run(*guest), guests))
    if not results:
        raise LabError("failed to run anything: no kernel that was asked for has one of these checks")
    elapsed_s = round(time.monotonic() - started, 1)
    text = json.dumps({"schema": 1, "quick": options.quick, "elapsed_s": elapsed_s, "guests": results}, indent=1)
    (matrix.output / "result.json").write_text(text + "\n")
    print(text if options.json else table(results))
    broken = [line for result in results for line in wrongs(result)]
    for line in broken:
        print(f"error: {line}", file=sys.stderr)
    say(f"{elapsed_s} s in all; each guest's files: {matrix.output}")
    return 1 if broken else 0


def main(argv):
    options = arguments(argv)
    # So that guests and mounts are undone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return work(options)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
