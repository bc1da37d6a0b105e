"""What each kernel must show: the checks that its guest runs, and what must have come of each.

Holds: what is expected is computed, from the kernel's version and from the units that a profile names; it is held
against the emulator's own list of units. The judges are pure functions of what came out of a guest.

What the law of the volume makes sure does not depend on how fast this machine is: 900 units take 3.4 s of a gp3
volume, so a deadline of half a second passes; a fetch that stalls for ten minutes does not end in a check.
"""

import json
import random
from dataclasses import dataclass

from .reference import BOOT_RING as REFERENCE_WORDS
from .shell import LabError

UNIT = 512 << 10
DISK_UNITS = 1024
# Where the partition table and the filesystem's superblock are: a volume is recognised by what is in these units.
IDENTITY = {0, 2}
# The first units hold what the volume is recognised by, the last the backup table.
FREE = range(4, DISK_UNITS - 4)
UNREADABLE = [100, 777]
# By disk: how it behaves. Beyond what a deadline lets through and what bad blocks cost in retries.
STALL_FETCH = 700
VOLUMES = {
    "main": ("io2", []),
    "bad": ("gp3", ["eio_units=" + ",".join(map(str, UNREADABLE)), f"stall_fetch={STALL_FETCH}", "stall=600s"]),
}


def drawn(seed, count):
    return random.Random(seed).sample([unit for unit in FREE if unit not in UNREADABLE], count)


# Profiles by name: the units they name, and bytes of each.
PROFILES = {
    # More than the deepest ring of the checks.
    "touch": (drawn(1, 300), 8 << 10),
    # Requests that a kernel splits, and a buffer of their size.
    "full": (drawn(2, 24), 448 << 10),
    "unreadable": (UNREADABLE + drawn(3, 38), 8 << 10),
    "many": (drawn(4, 900), 8 << 10),
}

# The oldest kernel for each way to set a ring up, as `src/engine/uring.rs` has them.
LADDER = [
    ((6, 6), "single issuer, deferred, no sqarray"), ((6, 1), "single issuer, deferred"), ((5, 19), "cooperative"),
    ((5, 10), "bare"),
]
# From this on the command line can name an instance to trace into.
INSTANCE = (6, 3)
# An instance from the command line has another clock than the kernel's own ring. The way from one to the other is
# measured to microseconds, and to milliseconds where the host takes the processor away meanwhile.
CLOCKS_APART_S_MAX = 1.0
# From this on a sysctl can refuse rings.
SYSCTL = (6, 6)


def ring(version, buffer="registered buffer"):
    """How the engine is expected to call itself."""
    rung = next(name for since, name in LADDER if version >= since)
    return f"io_uring ({rung}; registered file, {buffer}, restricted to reads)"


@dataclass
class Seen:
    """What came of a check."""

    code: str
    out: str
    err: str
    report: dict | None
    stats: dict
    # What `lab compare` says, of a recording.
    compared: dict | None

    @property
    def touched(self):
        return {touch["unit"] for touch in self.stats["touched"]}

    @property
    def summary(self):
        """Of a recording; behind what the recorded command printed. Nothing where there is none."""
        return json.loads(self.out[self.out.index("{"):]) if "{" in self.out else {"slowest": []}


@dataclass
class Check:
    """What is run in a guest, and what must come of it."""

    name: str
    command: str
    judge: object
    disk: str = "main"
    since: tuple = (0,)
    # Whether it begins with the boot; the disks are made cold again before all others.
    from_boot: bool = False
    # What the guest does before and after it.
    before: str = ""
    after: str = ""


def expect(wrong, what, found, wanted):
    if found != wanted:
        wrong.append(f"{what}: {found!r}, expected {wanted!r}")


def units_of(wrong, seen, wanted):
    missing, extra = sorted(wanted - seen.touched), sorted(seen.touched - wanted)
    if missing:
        wrong.append(f"{len(missing)} units are not warm: {missing[:8]}")
    if extra:
        wrong.append(f"{len(extra)} units were read that are not in the profile: {extra[:8]}")


def totals(seen):
    if seen.report is None:
        raise LabError(f"failed to read the report: {seen.err.strip()[-400:] or 'it was not written'}")
    return seen.report["totals"]


def ended(seen, code, end, engine):
    """What is wrong with how a warming ended, and the totals of its report."""
    wrong, all_ = [], totals(seen)
    expect(wrong, "exit code", seen.code, code)
    expect(wrong, "end", seen.report["end"], end)
    # How many threads a pool has is not of interest.
    expect(wrong, "engine", seen.report["engine"][:len(engine)], engine)
    return wrong, all_


def whole(units, engine=ring):
    """All these units are warm, no other is, and they were read so."""
    units = set(units)

    def judge(version, seen):
        wrong, all_ = ended(seen, "0", "complete", engine(version))
        expect(wrong, "blocks that failed", all_["errors"], 0)
        units_of(wrong, seen, units | IDENTITY)
        return wrong, f"{len(units & seen.touched)} of {len(units)} units"
    return judge


def threads(_version):
    return "pread ("


def without_memory(version):
    return ring(version, "plain buffer")


def unreadable(version, seen):
    """What can be read is warm, and what cannot is named."""
    units = set(PROFILES["unreadable"][0])
    wrong, all_ = ended(seen, "3", "complete", ring(version))
    expect(wrong, "blocks that failed", all_["errors"], 8 * len(UNREADABLE))
    named = {extent["start_sector"] * 512 // UNIT for extent in seen.report["unreadable"]}
    expect(wrong, "units that are named unreadable", sorted(named), sorted(UNREADABLE))
    units_of(wrong, seen, units | IDENTITY)
    expect(wrong, "units that hydrated", seen.stats["counters"]["hydrated"], len(units | IDENTITY) - len(UNREADABLE))
    return wrong, f"{len(units) - len(UNREADABLE)} of {len(units)} units, {all_['errors']} blocks named"


def deadline(version, seen):
    """What was submitted in time was read, nothing else, and the report knows how much."""
    units = set(PROFILES["many"][0])
    wrong, all_ = ended(seen, "5", "deadline", ring(version))
    read, most = all_["units"] - all_["units_left"], all_["units"] - all_["units_left"] + seen.report["abandoned"]
    touched = len(seen.touched - IDENTITY)
    expect(wrong, "units planned", all_["units"], len(units))
    if seen.touched - units - IDENTITY:
        wrong.append(f"units were read that are not in the profile: {sorted(seen.touched - units - IDENTITY)[:8]}")
    if not read <= touched <= most:
        wrong.append(f"{touched} units touched; the report has {read} read, {most - read} left under way")
    return wrong, f"{read} of {len(units)} units in time"


def stalled(version, seen):
    """All but the one that stalls is read, and a signal ends the process while that one is still without an answer."""
    units = set(PROFILES["many"][0])
    wrong, all_ = ended(seen, "1", "stopped", ring(version))
    expect(wrong, "units left, and left under way", [all_["units_left"], seen.report["abandoned"]], [1, 1])
    expect(wrong, "reads under way when the process had ended", seen.stats["in_flight"], 1)
    units_of(wrong, seen, units | IDENTITY)
    return wrong, f"{len(units) - 1} of {len(units)} units, 1 left under way"


def recording(wrong, seen, code="0"):
    """The summary of a recording that has no unit that was not touched, and that knows how long reads waited."""
    expect(wrong, "exit code", seen.code, code)
    if seen.compared is None:
        raise LabError(f"failed to read the recording: {seen.err.strip()[-400:] or 'it was not written'}")
    summary = seen.summary
    expect(wrong, "units that are extra", seen.compared["extra"], [])
    # A cold read waits as long as the law says, tens of milliseconds: where all waits are shorter than this,
    # completions were not understood.
    longest_us = max((stall["latency_us"] for stall in summary["slowest"]), default=0)
    if longest_us < 10_000:
        wrong.append(f"the longest wait of a cold read is {longest_us} us")
    return summary


def recorded(_version, seen, code="0"):
    """The recording has just the units that the emulator saw."""
    wrong = []
    summary = recording(wrong, seen, code)
    expect(wrong, "events lost", summary["lost"], 0)
    expect(wrong, "units that are missing", seen.compared["missing"], [])
    # Each of these checks sees the disk from its first read to its last: nothing is out of the recorder's reach.
    for when in ("before", "after"):
        expect(wrong, f"units that were touched {when} the recording", seen.compared[when], 0)
    return wrong, f"{seen.compared['recorded']} of {seen.compared['touched']} units, {summary['lost']} lost"


def late(version, seen):
    """Nothing was traced so far: said, and recorded from now on."""
    wrong, shown = recorded(version, seen, "1")
    if "failed to find a trace of the boot" not in seen.err or "trace_clock=mono" not in seen.err:
        wrong.append(f"the reason and the remedy are not told: {seen.err.strip()[-400:]}")
    return wrong, shown


def overflowed(_version, seen):
    """A ring that was too small: what it lost is counted and told, the rest is recorded."""
    wrong = []
    summary = recording(wrong, seen)
    if summary["lost"] == 0 or f"lost {max(summary['lost_by_cpu'])} events" not in seen.err:
        wrong.append(f"{summary['lost']} events lost, and it is not told so: {seen.err.strip()[-400:]}")
    if seen.compared["recorded"] == seen.compared["touched"]:
        wrong.append("no unit is missing: the ring was large enough")
    return wrong, f"{seen.compared['recorded']} of {seen.compared['touched']} units, {summary['lost']} lost"


def undone(_version, seen):
    """Whatever was recorded, nothing is traced any more, and no instance is left."""
    wrong = []
    expect(wrong, "instances, and block events that are on", set(seen.out.split()), {"0"})
    return wrong, "nothing left"


def apart_s(one, other):
    """By how much the times of the same reads differ in two recordings; `None` where they have none in common."""
    times = [{stall["start_sector"]: stall["at_s"] for stall in seen.summary["slowest"]} for seen in (one, other)]
    return max((abs(times[0][start] - times[1][start]) for start in times[0].keys() & times[1].keys()), default=None)


def warm(name, profile, judge, options="", under="", disk="main", **more):
    words = (
        f"{under} ebs-prewarm --log debug warm --profile /profiles/{profile}.bin --device /dev/${disk} "
        f"--report /out/{name}.json {options}"
    )
    return Check(name, words, judge, disk, **more)


def touch(name, engine=ring, options="--mode touch --depth 256", under="", **more):
    return warm(name, "touch", whole(PROFILES["touch"][0], engine), options, under, **more)


def record(name, options, workload, judge=recorded, **more):
    words = f"ebs-prewarm --json record -o /out/{name}.rec --device /dev/$main {options} -- {workload}"
    return Check(name, words, judge, **more)


ALL_BUT_ONE = len(PROFILES["many"][0]) + len(IDENTITY) - 1
WARM_IN_A_RECORDING = "ebs-prewarm warm --profile /profiles/touch.bin --device /dev/$main --mode touch --depth 256"
DISABLED = "/proc/sys/kernel/io_uring_disabled"
UNDONE = Check("undone", "left", undone)
# The boot's own rings first: they hold what happened since the kernel started. On kernels that know instances both are
# traced into, and one is read after the other.
BOOT_INSTANCE = record("boot-instance", "--boot-ring", "workload raw", since=INSTANCE, from_boot=True)
BOOT_RING = record("boot-ring", "--boot-ring", "workload raw", from_boot=True)
LIVE = record("live", "", "workload files raw")
ALL = [
    BOOT_INSTANCE,
    BOOT_RING,
    LIVE,
    record("live-io_uring", "", WARM_IN_A_RECORDING),
    UNDONE,
    touch("touch", options=""),
    touch("depth-256"),
    touch("memlock-64k", without_memory, under="confine memlock 65536"),
    touch("memlock-0", without_memory, under="confine memlock 0"),
    touch("seccomp", threads, under="confine uring"),
    touch("sysctl", threads, since=SYSCTL, before=f"echo 2 >{DISABLED}", after=f"echo 0 >{DISABLED}"),
    touch("initramfs", options="--mode touch --survive-switch-root --wait 10s"),
    warm("full", "full", whole(PROFILES["full"][0]), "--mode full"),
    warm("rest", "touch", whole(range(DISK_UNITS)), "--mode touch --rest all"),
    warm("unreadable", "unreadable", unreadable, "--mode touch", disk="bad"),
    warm("deadline", "many", deadline, "--mode touch --deadline 500ms", disk="bad"),
    # The last one: its read stays under way.
    warm("stalled", "many", stalled, "--mode touch", f"until_hydrated {ALL_BUT_ONE}", "bad"),
]


@dataclass
class Boot:
    """One guest: how its kernel is started, and what it runs."""

    name: str
    checks: list
    processors: int = 2
    words: tuple = ()
    instance: tuple = ()
    since: tuple = (0,)
    quick: bool = False

    def words_for(self, version):
        return [*self.words, *(self.instance if version >= INSTANCE else ())]


TRACED = tuple(word for word in REFERENCE_WORDS if word.startswith("trace_"))
TRACED_INSTANCE = ("trace_instance=ebs-prewarm,block:block_rq_issue,block:block_rq_complete",)
BOOTS = [
    Boot("2 cpus", ALL, 2, TRACED, TRACED_INSTANCE, quick=True),
    Boot("1 cpu", ALL, 1, TRACED, TRACED_INSTANCE),
    Boot("instance", [BOOT_RING, UNDONE], instance=("trace_buf_size=8M", *TRACED_INSTANCE), since=INSTANCE),
    Boot("untraced", [record("boot-ring", "--boot-ring", "workload files raw", late), UNDONE]),
    Boot("small ring", [record("boot-ring", "--boot-ring", "workload raw", overflowed, from_boot=True), UNDONE],
         words=tuple(word for word in TRACED if "buf_size" not in word) + ("trace_buf_size=4k",)),
]


def script(checks):
    """What the guest runs. The files are read before any recorder is there: only the boot's ring has that."""
    lines = ["workload files >/out/boot.files"]
    for check in checks:
        if not check.from_boot:
            lines.append("ask reset")
        lines += ["forget", check.before, f"check {check.name} {check.disk} {check.command}", check.after]
    return "\n".join(filter(None, lines)) + "\n"
