"""Cases of no harm: whatever is wrong, the node gets ready, and no later than without us.

Holds: each case says what it expects of the warmer's report. How late is too late is judged against the cold boots of
the same run: by medians over several rounds, and by no more than noise where there is one round.
"""

import json
import random
import statistics

from . import image
from .cpio import laid_over
from .shell import run, say

PROFILE = "etc/ebs-prewarm/boot.bin"
# Promised: no later than a cold boot and 2 %, at the median.
LATER_MAX = 1.02
# What one boot differs from another by on a machine that is shared.
NOISE = 0.3


class Case:
    """What is done to a boot, and what must come of it."""

    def __init__(self, name, end, *, prepare=None, sets=(), words=(), quick=False, variants=image.VARIANTS, errors=0,
                 controlled=False, **machine):
        self.name, self.end, self.prepare, self.sets, self.words = name, end, prepare, sets, words
        self.quick, self.variants, self.machine = quick, variants, machine
        # Blocks that the report must count as unreadable, at least.
        self.errors = errors
        # Whether a cold boot suffers from it too, so that it is held against cold boots of its kind.
        self.controlled = controlled


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


def killer(_lab, _profile):
    """A script beside ours that kills the warmer in its first second or so."""
    return image.script_after_ours("(sleep 0.7; read -r pid </run/ebs-prewarm/pid; kill -9 \"$pid\") &")


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


DEBIAN = ("ext4",)
CASES = [
    Case("no-profile", None, prepare=lambda lab, *_: {"initrd": without_profile(lab)}),
    Case("profile-empty", "refused", prepare=profile_over(lambda *_: b"")),
    Case("profile-corrupted", "refused", prepare=profile_over(corrupted), quick=True),
    Case("profile-truncated", "refused", prepare=profile_over(truncated)),
    Case("profile-of-another-image", "refused", prepare=profile_over(of_another_image)),
    Case("units-unreadable", "complete", prepare=unreadable, errors=24 * 8),
    Case("stall-60s", "complete", sets=["stall_fetch=200"], controlled=True),
    Case("warmer-killed", None, prepare=files_over(killer), quick=True, variants=DEBIAN),
    Case("disk-grown", "complete", prepare=disk_changed(grown)),
    Case("partition-moved", "complete", prepare=disk_changed(moved)),
    Case("disk-under-another-name", "complete", device="virtio"),
    Case("switched-off", None, words=["ebs_prewarm=off"]),
    Case("tracing-refused", None, words=["ebs_prewarm=record", "lockdown=confidentiality"]),
]


def without_profile(lab):
    return image.initramfs(lab.image.variant, lab.image.root, lab.output / "initrd.no-profile", lab.static, None)


def check(lab, initrd, profile, names, cold_times):
    """Runs the cases; returns what came of each, with the reasons why one does not hold."""
    if names == "quick":
        chosen = [case for case in CASES if case.quick]
    else:
        chosen = [case for case in CASES if names == "all" or case.name in names.split(",")]
    chosen = [case for case in chosen if lab.image.variant in case.variants]
    rounds = lab.options.case_rounds
    prepared = {case.name: {"initrd": initrd, **(case.prepare(lab, case, initrd, profile) if case.prepare else {})}
                for case in chosen}
    boots = {case.name: [] for case in chosen}
    controls = {case.name: [] for case in chosen if case.controlled}
    for number in range(rounds):
        for case in chosen:
            boots[case.name].append(one(lab, case, prepared[case.name], number))
            if case.controlled:
                controls[case.name].append(control(lab, case, number))
    results = [judged(case, boots[case.name], limit_of(controls.get(case.name, cold_times), rounds)) for case in chosen]
    for made in prepared.values():
        if made.get("disk"):
            made["disk"].unlink()
    return results


def limit_of(cold_times, rounds):
    known = [time for time in cold_times if time is not None]
    if not known:
        return None
    return max(known) * (1 + NOISE) if rounds == 1 else statistics.median(known) * LATER_MAX


def control(lab, case, number):
    """Seconds to ready of a cold boot with the same fault and without us."""
    return lab.boot(f"case-{case.name}-cold-{number + 1}", lab.image.initrds["plain"], ["ebs_prewarm=off"],
                    lab.options.seed + number, case.sets).ready_s


def one(lab, case, prepared, number):
    boot = lab.boot(
        f"case-{case.name}-{number + 1}", prepared["initrd"], case.words, lab.options.seed + number,
        [*case.sets, *prepared.get("sets", [])], disk=prepared.get("disk"), **case.machine,
    )
    report = boot.json("ebs-prewarm/initramfs.json") or {}
    return {"ready_s": boot.ready_s, "why": boot.why, "end": report.get("end"), "error": report.get("error"),
            "errors": report.get("totals", {}).get("errors", 0)}


def judged(case, boots, limit):
    """What came of a case's boots. The limit is for their median: one boot is no measure of 2 %."""
    ready = [boot["ready_s"] for boot in boots if boot["ready_s"] is not None]
    median = statistics.median(ready) if ready else None
    wrong = [f"not ready: {boot['why']}" for boot in boots if boot["ready_s"] is None]
    if limit and median and median > limit:
        wrong.append(f"ready after {median:.2f} s, later than {limit:.2f} s")
    wrong += [f"the report says {boot['end']}, not {case.end}" for boot in boots if boot["end"] != case.end]
    wrong += [f"{boot['errors']} unreadable blocks in the report, not {case.errors}" for boot in boots
              if boot["errors"] < case.errors]
    say(f"case {case.name}: " + ("; ".join(wrong) or "holds"))
    return {"case": case.name, "ready_s": median, "times_s": ready, "end": boots[0]["end"],
            "error": boots[0]["error"], "limit_s": limit, "wrong": wrong}
