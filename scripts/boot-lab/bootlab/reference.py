"""The reference boot: recorded, held against what the emulator saw, made into a profile."""

import json

from .shell import LabError, run, say

# So that the very first reads are in the kernel's ring; `record --help` names these.
BOOT_RING = [
    "ebs_prewarm=record", "trace_event=block:block_rq_issue,block:block_rq_complete", "trace_buf_size=8M",
    "trace_clock=mono",
]


def record(lab, orders):
    """Boots once with the recorder on. Returns compiled profiles, one for each of `orders`, {kind of boot: order}, and
    what is to be said of the recording."""
    say("reference boot, recorded")
    boot = lab.boot("reference", lab.image.initrds["plain"], BOOT_RING, lab.options.seed + 1000)
    recording = lab.output / "boot.rec"
    if "boot.rec" not in boot.files:
        raise LabError(f"failed to record the reference boot: no recording came out\n{boot.console[-2000:]}")
    recording.write_bytes(boot.files["boot.rec"])
    compared = compare(lab, boot, recording)
    profiles, built = {}, None
    for mode, order in orders.items():
        profiles[mode] = lab.output / ("boot.bin" if mode == "ebs-prewarm" else f"{mode}.bin")
        built = build(lab, [recording], profiles[mode], order)
    share = compared["coverage"]
    say(f"touched {compared['touched']} units, {compared['before']} before the recording; recorded {compared['recorded']}, "
        f"{compared['own']} by the recorder alone, {len(compared['missing'])} missing ({share:.2%}), "
        f"{len(compared['extra'])} extra; profile of {profiles['ebs-prewarm'].stat().st_size} bytes")
    return profiles, {"ready_s": boot.ready_s, "compared": compared, "profile": built}


def compare(lab, boot, recording):
    stats = lab.output / "reference.stats.json"
    stats.write_text(json.dumps(boot.stats))
    return json.loads(run(lab.host, "--json", "lab", "compare", stats, recording))


def build(lab, recordings, profile, order):
    people = profile.with_suffix(".yaml")
    built = run(lab.host, "--json", "profile", "build", "--order", order, "--name",
                f"boot-lab-{lab.options.variant}", "-o", people, *recordings)
    run(lab.host, "--json", "profile", "compile", "-o", profile, people)
    return json.loads(built)


def units(lab, profile):
    """The units that a profile names, on the image."""
    shown = json.loads(run(lab.host, "--json", "profile", "show", profile))
    extents = [extent for stage in shown["stages"] for extent in stage["extents"]]
    return {unit for start, sectors in extents for unit in range(start // 1024, (start + sectors + 1023) // 1024)}
