"""The command: what is asked for, in which order, and where it goes.

Holds: results are saved as they come, so that a run which is broken off has not been for nothing; the exit code is 1
where a boot did not get ready or recovered is below what was asked for.
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import time

from . import cases, figures, image, machine, reference, show
from .cold import ColdVolume
from .cpio import laid_over
from .shell import LabError, run, say

OFF = "ebs_prewarm=off"
# Kinds of boot, and what is added to the kernel's command line; those with the warmer in the initramfs are named after
# the order of their profile.
WORDS = {
    "warm": [OFF], "cold": [OFF], "recorded": reference.BOOT_RING, "fio": ["node.fio", OFF],
    "ebs-prewarm": [], "history": [], "address": [], "rest": ["systemd.wants=ebs-prewarm-rest.service"],
    "watch": ["ebs_prewarm=watch"],
}
ORDERS = {"ebs-prewarm": "stall", "history": "history", "address": "address", "rest": "stall", "watch": "stall"}
MODES = ("warm", "cold", "fio", "ebs-prewarm")
QUICK = ("warm", "cold", "ebs-prewarm")
ROUNDS_ON_DOUBT = 3
EXAMPLE = """examples:
  scripts/boot-lab/run --quick
  scripts/boot-lab/run --variant ext4 --model gp3 --rounds 5 --output results
  scripts/boot-lab/run --model scarce --modes warm,cold,ebs-prewarm,history,address

Needs root, QEMU and debootstrap. Images are kept in $EBS_PREWARM_CACHE (/var/cache/ebs-prewarm-boot-lab)."""


def arguments(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/boot-lab/run", description=sys.modules["__main__"].__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one round without the slow fio, and a few cases, as in continuous integration")
    add("--variant", choices=image.VARIANTS, default="ext4", help="filesystem and what makes the initramfs")
    add("--model", default="gp3", help="how the volume behaves: gp3, io2, slow, scarce, ... or a file")
    add("--rounds", type=int, help="boots of each kind, interleaved (5, or 1 with --quick)")
    add("--modes", help=f"kinds of boot ({', '.join(MODES)}), of: " + ", ".join(WORDS))
    add("--seed", type=int, default=1, help="of the first round's volume; each round has its own")
    add("--cases", default="", help="cases of no harm after the rounds: all, quick, or their names")
    add("--case-rounds", type=int, default=1, help="boots of each case; the median is held against that of cold boots")
    add("--profile", type=pathlib.Path, help="a compiled profile, instead of recording a reference boot")
    add("--output", type=pathlib.Path, default=image.REPOSITORY / "target/boot-lab", help="folder for results")
    add("--expect", type=float, help=f"fail where less than this is recovered, by {ROUNDS_ON_DOUBT} rounds at least where it seems so")
    add("--nice", type=int, default=0, help="priority of the machines and volumes, as of nice(1)")
    return parser.parse_args(argv)


class Lab:
    """One run: what it was asked for, what it has made."""

    def __init__(self, options):
        self.options = options
        self.output = options.output.resolve()
        self.output.mkdir(parents=True, exist_ok=True)
        self.host, self.static = binaries()
        self.image = image.build(options.variant, self.static, self.host)

    def boot(self, name, initrd, words, seed, sets=(), disk=None, device="nvme"):
        """One boot; its files are kept in a folder of its name."""
        with ColdVolume(self.host, disk or self.image.disk, self.options.model, seed, sets) as cold:
            boot = machine.boot(self.image, initrd, words, cold, device)
        keep(self.output / "boots" / name, boot)
        warmed = report_of(boot)
        touched = len(boot.stats["touched"])
        state = f"ready after {boot.ready_s:.2f} s" if boot.ready_s is not None else f"NOT READY: {boot.why}"
        say(f"{name}: {state}, {touched} units fetched" + (f"; warmed: {told(warmed)}" if warmed else ""))
        return boot

    def initrd(self, profile, mode="ebs-prewarm"):
        """The initramfs that the distribution makes with our hook and this profile in place."""
        path = self.output / f"initrd.{mode}"
        say(f"initramfs with {profile.name}")
        made = image.initramfs(self.image.variant, self.image.root, path, self.static, profile)
        if mode == "rest":
            more = image.script_after_ours("cat /etc/ebs-prewarm/boot.bin >/run/node-boot.bin")
            path.write_bytes(laid_over(path.read_bytes(), more))
        return made


def report_of(boot):
    """What the warmer said, of whichever began."""
    return boot.json("ebs-prewarm/initramfs.json") or boot.json("ebs-prewarm/warm.json")


def rest_of(boot):
    """What became of the rest, and of a second run that finds the stamp."""
    first, again = boot.json("ebs-prewarm/rest-first.json"), boot.json("ebs-prewarm/rest.json")
    if not first:
        return None
    kept = {name: first["totals"][name] for name in ("resumed", "reads", "extra_reads", "held_back_s", "elapsed_s")}
    again = again and {"end": again["end"], "reads": again["totals"]["reads"] + again["totals"]["extra_reads"]}
    say(f"  rest: {first['end']}, {json.dumps(kept)}; once more: {json.dumps(again)}")
    return {"end": first["end"], **kept, "again": again}


def effect_of(lab, name, boot):
    """What the warming says that it did for the boot, held against what the emulator saw: its list of units is that of the
    boot and of the warming."""
    effect, recording = boot.json("ebs-prewarm/effect.json"), lab.output / "boots" / name / "ebs-prewarm/effect.rec"
    if not effect:
        return None
    stats = lab.output / "boots" / name / "stats.json"
    compared = json.loads(run(lab.host, "--json", "lab", "compare", stats, recording))
    states = {state: effect["totals"][state] for state in ("units", "before", "late", "after", "never", "left")}
    said = {**states, "missed": effect["missed_units"], "avoided_s": round(effect["stall_avoided_s"], 3),
            "suffered_s": round(effect["stall_suffered_s"], 3), "lost": effect["lost"]}
    truth = {"touched": compared["touched"], "before_it_saw": compared["before"], "by_the_boot": compared["recorded"],
             "by_the_warming_alone": compared["own"], "missing": len(compared["missing"]), "extra": len(compared["extra"])}
    say(f"  effect: {json.dumps(said)}; the emulator: {json.dumps(truth)}")
    return {"said": said, "emulator": truth}


def told(report):
    totals = report["totals"]
    return (
        f"{report['end']}, {totals['reads']} of {totals['units']} units, first read at "
        f"{report['first_read_uptime_s']:.2f} s, took {totals['elapsed_s']:.2f} s"
    )


def keep(directory, boot):
    for name, content in {**boot.files, "console": boot.console.encode(),
                          "stats.json": json.dumps(boot.stats).encode()}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def binaries():
    """The host's, which emulates, and the static one, which goes into images."""
    given = os.environ.get("EBS_PREWARM_HOST"), os.environ.get("EBS_PREWARM_STATIC")
    if all(given):
        return pathlib.Path(given[0]).resolve(), pathlib.Path(given[1]).resolve()
    say("building ebs-prewarm")
    run("cargo", "build", "--quiet", "--locked", "--release", "--manifest-path", image.REPOSITORY / "Cargo.toml")
    run(image.REPOSITORY / ".ci/static")
    built = image.REPOSITORY.glob("target/x86_64-unknown-linux-*/initramfs/ebs-prewarm")
    return image.REPOSITORY / "target/release/ebs-prewarm", max(built, key=lambda path: path.stat().st_mtime)


def falls_short(options, modes):
    share = modes.get("ebs-prewarm", {}).get("recovered")
    return options.expect is not None and (share is None or share < options.expect)


def measure(lab, modes, initrds):
    """The rounds. The order turns, so that no kind of boot always has the machine's better minute."""
    options = lab.options
    rounds = options.rounds or (1 if options.quick else 5)
    times, boots = {mode: [] for mode in modes}, []
    for number in range(max(rounds, ROUNDS_ON_DOUBT)):
        # One round on a busy machine says little: where it falls short, more of them decide.
        if number >= rounds and not falls_short(options, figures.summary(times)):
            break
        turn = number % len(modes)
        for mode in modes[turn:] + modes[:turn]:
            sets = ["warm_units=1.0"] if mode == "warm" else []
            chosen = initrds.get(mode, lab.image.initrds["plain"])
            boot = lab.boot(f"round-{number + 1}-{mode}", chosen, WORDS[mode], options.seed + number, sets)
            times[mode].append(boot.ready_s)
            boots.append({"round": number + 1, "mode": mode, "ready_s": boot.ready_s, "why": boot.why,
                          "fetched_units": len(boot.stats["touched"]), "counters": boot.stats["counters"],
                          "warmed": figures.warmed(report_of(boot)), "rest": rest_of(boot),
                          "effect": effect_of(lab, f"round-{number + 1}-{mode}", boot),
                          "touched": [touch["unit"] for touch in boot.stats["touched"]]})
            save(lab, {"boots": boots})
    return times, boots


def save(lab, result):
    (lab.output / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def main(argv):
    options = arguments(argv)
    # So that machines and mounts are undone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.nice:
            prefer(options.nice)
        return work(Lab(options))
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def prefer(nice):
    """Priority of this process and its children."""
    os.nice(nice)
    # Where the kernel groups processes by session, nice alone says something within the session only.
    group = pathlib.Path("/proc/self/autogroup")
    if group.exists():
        group.write_text(f"{nice}\n")


def work(lab):
    options = lab.options
    modes = options.modes.split(",") if options.modes else list(QUICK if options.quick else MODES)
    unknown = [mode for mode in modes if mode not in WORDS]
    if unknown:
        raise LabError(f"failed to find kind of boot `{unknown[0]}`: known are {', '.join(WORDS)}")
    result = {"schema": 1, "variant": options.variant, "model": options.model, "quick": options.quick,
              "image": lab.image.directory.name, "started": int(time.time())}
    orders = {mode: ORDERS[mode] for mode in ["ebs-prewarm", *modes] if mode in ORDERS}
    if options.profile:
        profiles = {mode: options.profile.resolve() for mode in orders}
    else:
        profiles, result["reference"] = reference.record(lab, orders)
    profile = profiles["ebs-prewarm"]
    initrds = {mode: lab.initrd(path, mode) for mode, path in profiles.items()}
    times, boots = measure(lab, modes, initrds)
    result["modes"] = figures.summary(times)
    result["boots"] = boots
    result["warmed"] = figures.warmed_median(boots)
    units = reference.units(lab, profile)
    result["overlap"] = figures.overlap(units, [boot["touched"] for boot in boots if boot["mode"] == "cold"])
    result["profile_bytes"] = profile.stat().st_size
    result["title"] = f"Seconds from kernel start to ready: {options.variant}, {options.model}"
    save(lab, result)
    (lab.output / "boots.svg").write_text(show.plot(result))
    print(show.table(result))
    print(show.notes(result), end="")
    wanted = options.cases or ("quick" if options.quick else "")
    if wanted and wanted != "none":
        def save_cases(results, colds):
            result["cases"], result["cases_cold_s"] = results, colds
            save(lab, result)

        cases.check(lab, initrds["ebs-prewarm"], profile, wanted, times.get("cold", []), save_cases)
        print("\n" + show.cases(result["cases"]))
    print(f"\nresults, plot and each boot's files: {lab.output}")
    return verdict(options, result)


def verdict(options, result):
    modes = result["modes"]
    never = [mode for mode, figures in modes.items() if figures["ready"] < figures["rounds"]]
    if never:
        print(f"error: not ready in each round: {', '.join(never)}", file=sys.stderr)
        return 1
    broken = [case["case"] for case in result.get("cases", []) if case["wrong"]]
    if broken:
        print(f"error: cases that do not hold: {', '.join(broken)}", file=sys.stderr)
        return 1
    if falls_short(options, modes):
        share = modes.get("ebs-prewarm", {}).get("recovered")
        print(f"error: recovered {share}, expected at least {options.expect}", file=sys.stderr)
        return 1
    return 0
