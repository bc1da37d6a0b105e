"""The reference boot: recorded, held against what the emulator saw, made into a profile."""

import json

from .shell import LabError, run, say

# So that the very first reads are in the kernel's ring; `record --help` names these.
BOOT_RING = [
    "ebs_prewarm=record", "trace_event=block:block_rq_issue,block:block_rq_complete", "trace_buf_size=8M",
    "trace_clock=mono",
]


def record(lab):
    """Boots once with the recorder on. Returns the compiled profile, and what is to be said of it."""
    say("reference boot, recorded")
    boot = lab.boot("reference", lab.image.initrds["plain"], BOOT_RING, lab.options.seed + 1000)
    recording = lab.output / "boot.rec"
    if "boot.rec" not in boot.files:
        raise LabError(f"failed to record the reference boot: no recording came out\n{boot.console[-2000:]}")
    recording.write_bytes(boot.files["boot.rec"])
    compared = compare(lab, boot, recording)
    profile = lab.output / "boot.bin"
    built = build(lab, [recording], profile)
    share = compared["coverage"]
    say(f"recorded {compared['recorded']} of {compared['touched']} units ({share:.2%}), {len(compared['extra'])} extra; "
        f"profile of {profile.stat().st_size} bytes")
    return profile, {"ready_s": boot.ready_s, "compared": compared, "profile": built}


def compare(lab, boot, recording):
    stats = lab.output / "reference.stats.json"
    stats.write_text(json.dumps(boot.stats))
    return json.loads(run(lab.host, "--json", "lab", "compare", stats, recording))


def build(lab, recordings, profile):
    people = profile.with_suffix(".yaml")
    built = run(lab.host, "--json", "profile", "build", "--order", lab.options.order, "--name",
                f"boot-lab-{lab.options.variant}", "-o", people, *recordings)
    run(lab.host, "--json", "profile", "compile", "-o", profile, people)
    return json.loads(built)
