"""Cases of no harm: whatever is wrong, the node gets ready, and no later than without us.

Holds: each case says what it expects of the warmer's report. How late is too late is judged against the cold boots of
the same run: by medians over several rounds, in which cold boots and cases take turns, and by no more than noise where
there is one round. A case that seems late is booted again, beside cold boots, before it is said to be.
"""

import json
import random
import statistics

from . import guest, image
from .cpio import laid_over
from .shell import run, say

PROFILE = "etc/ebs-prewarm/boot.bin"
# Promised: no later than a cold boot and 2 %, at the median.
LATER_MAX = 1.02
# What one boot differs from another by on a machine that is shared.
NOISE = 0.3
# So many cases after each cold boot.
COLD_EVERY = 7
# A case that seems later than it may be has so many boots before that stands: boots differ by more than 2 %.
BOOTS_ON_DOUBT = 9
# How long a warmer has in which it is killed, in seconds: shorter than it takes for the profile.
KILLED_WITHIN_S = 4.5


class Case:
    """What is done to a boot, and what must come of it."""

    def __init__(self, name, end, *, prepare=None, sets=(), words=(), quick=False, errors=0, engine="",
                 controlled=False, **machine):
        self.name, self.end, self.prepare, self.sets, self.words = name, end, prepare, sets, words
        self.quick, self.machine = quick, machine
        # Blocks that the report must count as unreadable, at least.
        self.errors = errors
        # What the report's engine must begin with.
        self.engine = engine
        # Whether a cold boot suffers from it too, so that it is held against cold boots of its kind.
        self.controlled = controlled

    def words_of(self, seed):
        """What is added to the kernel's command line of one boot."""
        return self.words(seed) if callable(self.words) else self.words


def files_over(make):
    """Lays what `make(lab, profile)` returns over the initramfs."""
    def prepare(lab, case, initrd, profile):
        path = lab.output / f"initrd.{case.name}"
        path.write_bytes(laid_over(initrd.read_bytes(), make(lab, profile)))
        return {"initrd": path}
    return prepare


def profile_over(make):
    return files_over(lambda lab, profile: {PROFILE: (make(lab, profile), 0o644)})


def corrupted(_lab, profile):
    data = bytearray(profile.read_bytes())
    for place in random.Random(1).sample(range(len(data)), 40):
        data[place] ^= 0xFF
    return bytes(data)


def truncated(_lab, profile):
    data = profile.read_bytes()
    return data[: len(data) // 2]


def of_another_image(lab, profile):
    """The same extents, recorded on a disk with other UUIDs."""
    text = profile.with_suffix(".yaml").read_text()
    return compiled(lab, text.replace(image.DISK_UUID[:8], "0badcafe"), "other")


def with_unreadable(lab, profile):
    text = profile.with_suffix(".yaml").read_text()
    last = text.rstrip("\n").rsplit("\n", 1)[1].split()[0]
    lines = "".join(f"  {last} 1 {unit * 1024 - image.PARTITION_START // 512} 8 1 1\n" for unit in unused_units(lab))
    return compiled(lab, text.rstrip("\n") + "\n" + lines, "unreadable")


def compiled(lab, text, name):
    people, binary = lab.output / f"{name}.yaml", lab.output / f"{name}.bin"
    people.write_text(text)
    run(lab.host, "profile", "seal", people)
    run(lab.host, "profile", "compile", "-o", binary, people)
    return binary.read_bytes()


def unused_units(lab, count=24):
    """Units that no boot reads."""
    stats = json.loads((lab.output / "reference.stats.json").read_text())
    touched = {touch["unit"] for touch in stats["touched"]}
    first = image.PARTITION_START // stats["model"]["unit_bytes"] + 8
    # Metadata is at the start of the filesystem; what is far from anything touched is data.
    free = (unit for unit in range(first, 6000) if not any(unit + near in touched for near in range(-2, 3)))
    return [unit for _, unit in zip(range(count), free)]


def unreadable(lab, case, initrd, profile):
    prepared = profile_over(with_unreadable)(lab, case, initrd, profile)
    # By sectors: where the image has a hole there is no fetch that could fail.
    prepared["sets"] = ["eio_sectors=" + ",".join(f"{unit * 1024}+8" for unit in unused_units(lab))]
    return prepared


def without_io_uring(lab, _profile):
    """The kernel refuses rings to the warmer: this node's has no switch for it yet, `kernel.io_uring_disabled`."""
    warmer = "usr/sbin/ebs-prewarm"
    script = f'#!/bin/sh\nexec /usr/sbin/confine uring /{warmer}.confined "$@"\n'
    parts = {warmer: script.encode(), f"{warmer}.confined": lab.static.read_bytes(),
             "usr/sbin/confine": guest.confine(lab.output).read_bytes()}
    return {path: (content, 0o755) for path, content in parts.items()}


def killer(lab, _profile):
    """Kills the warmer, so long after it was there as the command line says; in the system too, if it comes to that."""
    kill = """read -r line </proc/cmdline
for word in $line; do
    case $word in node.kill_after=*) after=${word#*=} ;; esac
done
wait_s "$after"
kill -9 "$pid"
"""
    if lab.image.variant == "ext4":
        find = "until [ -s /run/ebs-prewarm/pid ]; do wait_s 0.05; done\nread -r pid </run/ebs-prewarm/pid\n"
        return image.script_after_ours(f'wait_s() {{ sleep "$1"; }}\n(\n{find}{kill}) &')
    # systemd ends all that does not have an @ first in its name when it leaves the initramfs.
    script = f'#!/bin/bash\nwait_s() {{ (exec -a @sleep sleep "$1"); }}\npid=$MAINPID\n(\n{kill}) &\n'
    drop_in = "[Service]\nExecStartPost=-@/bin/bash @killer /usr/bin/kill-warmer\n"
    directory = "etc/systemd/system/ebs-prewarm-initramfs.service.d"
    return {"usr/bin/kill-warmer": (script.encode(), 0o755), directory: (None, 0o755),
            f"{directory}/kill.conf": (drop_in.encode(), 0o644)}


def kill_moment(seed):
    return [f"node.kill_after={random.Random(seed).uniform(0, KILLED_WITHIN_S):.2f}"]


def disk_changed(change):
    """Boots from a disk that `change(disk, path)` makes of the image's."""
    def prepare(lab, case, initrd, _profile):
        path = lab.output / f"disk.{case.name}"
        change(lab.image.disk, path)
        return {"initrd": initrd, "disk": path}
    return prepare


def grown(disk, path):
    run("cp", "--sparse=always", disk, path)
    with path.open("r+b") as file:
        file.truncate(20 << 30)


def moved(disk, path):
    start = image.PARTITION_START + (64 << 20)
    with path.open("wb") as file:
        file.truncate(image.DISK_BYTES + (64 << 20))
    image.write_table(path, start)
    run("dd", f"if={disk}", f"of={path}", "bs=1M", f"skip={image.PARTITION_START >> 20}", f"seek={start >> 20}",
        f"count={image.partition_bytes() >> 20}", "conv=sparse,notrunc", "status=none")


CASES = [
    Case("no-profile", None, prepare=lambda lab, *_: {"initrd": without_profile(lab)}),
    # It keeps the place of one that is to come: there is nothing to do, and nothing to say.
    Case("profile-empty", None, prepare=profile_over(lambda *_: b"")),
    Case("profile-corrupted", "refused", prepare=profile_over(corrupted), quick=True),
    Case("profile-truncated", "refused", prepare=profile_over(truncated)),
    Case("profile-of-another-image", "refused", prepare=profile_over(of_another_image)),
    Case("units-unreadable", "complete", prepare=unreadable, errors=24 * 8),
    Case("stall-60s", "complete", sets=["stall_fetch=200"], controlled=True),
    Case("warmer-killed", None, prepare=files_over(killer), words=kill_moment, quick=True),
    Case("disk-grown", "complete", prepare=disk_changed(grown)),
    Case("partition-moved", "complete", prepare=disk_changed(moved)),
    Case("disk-under-another-name", "complete", device="virtio"),
    Case("io-uring-refused", "complete", prepare=files_over(without_io_uring), engine="pread ("),
    Case("switched-off", None, words=["ebs_prewarm=off"]),
    Case("tracing-refused", None, words=["ebs_prewarm=record", "lockdown=confidentiality"]),
]


def without_profile(lab):
    return image.initramfs(lab.image.variant, lab.image.root, lab.output / "initrd.no-profile", lab.static, None)


def check(lab, initrd, profile, names, cold_times, save):
    """Runs the cases; returns what came of each, with the reasons why one does not hold. `save` is called with that after
    each round."""
    if names == "quick":
        chosen = [case for case in CASES if case.quick]
    else:
        chosen = [case for case in CASES if names == "all" or case.name in names.split(",")]
    rounds = lab.options.case_rounds
    prepared = {case.name: {"initrd": initrd, **(case.prepare(lab, case, initrd, profile) if case.prepare else {})}
                for case in chosen}
    boots = {case.name: [] for case in chosen}
    controls = {case.name: [] for case in chosen if case.controlled}
    colds = list(cold_times)

    def judge():
        return [judged(case, boots[case.name], limit_of(controls.get(case.name, colds), rounds)) for case in chosen]

    results = []
    for number in range(rounds if rounds == 1 else BOOTS_ON_DOUBT):
        late = {result["case"] for result in results if result["late"]}
        doubted = [case for case in chosen if number < rounds or case.name in late]
        if not doubted:
            break
        for index, case in enumerate(doubted):
            if rounds > 1 and index % COLD_EVERY == 0:
                colds.append(cold(lab, f"case-cold-{len(colds) + 1}", number, ()))
            boots[case.name].append(one(lab, case, prepared[case.name], number))
            if case.controlled:
                name = f"case-{case.name}-cold-{number + 1}"
                controls[case.name].append(cold(lab, name, number, case.sets))
        results = judge()
        save(results, colds)
    for result in results:
        say(f"case {result['case']}: " + ("; ".join(result["wrong"]) or "holds"))
    for made in prepared.values():
        if made.get("disk"):
            made["disk"].unlink()
    return results


def limit_of(cold_times, rounds):
    known = [time for time in cold_times if time is not None]
    if not known:
        return None
    return max(known) * (1 + NOISE) if rounds == 1 else statistics.median(known) * LATER_MAX


def cold(lab, name, number, sets):
    """Seconds to ready of a boot without us, of a volume that has this fault."""
    return lab.boot(name, lab.image.initrds["plain"], ["ebs_prewarm=off"], lab.options.seed + number, sets).ready_s


def one(lab, case, prepared, number):
    seed = lab.options.seed + number
    boot = lab.boot(
        f"case-{case.name}-{number + 1}", prepared["initrd"], case.words_of(seed), seed,
        [*case.sets, *prepared.get("sets", [])], disk=prepared.get("disk"), **case.machine,
    )
    report = boot.json("ebs-prewarm/initramfs.json") or {}
    return {"ready_s": boot.ready_s, "why": boot.why, "end": report.get("end"), "error": report.get("error"),
            "engine": report.get("engine", ""), "errors": report.get("totals", {}).get("errors", 0),
            "cpu_s": report.get("totals", {}).get("cpu_s")}


def judged(case, boots, limit):
    """What came of a case's boots. The limit is for their median: one boot is no measure of 2 %."""
    ready = [boot["ready_s"] for boot in boots if boot["ready_s"] is not None]
    median = statistics.median(ready) if ready else None
    wrong = [f"not ready: {boot['why']}" for boot in boots if boot["ready_s"] is None]
    late = bool(limit and median and median > limit)
    if late:
        wrong.append(f"ready after {median:.2f} s, later than {limit:.2f} s")
    wrong += [f"the report says {boot['end']}, not {case.end}" for boot in boots if boot["end"] != case.end]
    wrong += [f"{boot['errors']} unreadable blocks in the report, not {case.errors}" for boot in boots
              if boot["errors"] < case.errors]
    wrong += [f"the engine of the report is {boot['engine']}, not {case.engine}" for boot in boots
              if not boot["engine"].startswith(case.engine)]
    cpu = [boot["cpu_s"] for boot in boots if boot["cpu_s"] is not None]
    return {"case": case.name, "ready_s": median, "times_s": ready, "end": boots[0]["end"], "error": boots[0]["error"],
            "cpu_s": statistics.median(cpu) if cpu else None, "limit_s": limit, "late": late, "wrong": wrong}
