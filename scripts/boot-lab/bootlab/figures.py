"""Numbers from boots: medians, spread, recovered.

Holds: pure functions of what was measured. A boot that never got ready has no time and is counted, not dropped.
"""

import statistics


def spread(times):
    """Median, least and most of the times there are."""
    known = sorted(time for time in times if time is not None)
    if not known:
        return {"rounds": len(times), "ready": 0, "median_s": None, "min_s": None, "max_s": None, "times_s": list(times)}
    return {
        "rounds": len(times), "ready": len(known), "median_s": round(statistics.median(known), 3),
        "min_s": known[0], "max_s": known[-1], "times_s": list(times),
    }


def recovered(cold, method, warm):
    """(cold - method) / (cold - warm): 1 is as if the volume had been warm, 0 is no better than cold."""
    if None in (cold, method, warm) or cold <= warm:
        return None
    return (cold - method) / (cold - warm)


def summary(boots):
    """`boots` is {mode: [seconds or None by round]}; nothing is recovered without `warm` and `cold` among them.

    Recovered is the median over rounds, each against the warm and the cold boot of its own round: the machine's own
    slow minutes fall out.
    """
    modes = {mode: spread(times) for mode, times in boots.items()}
    if not {"warm", "cold"} <= modes.keys():
        return modes
    for mode, figures in modes.items():
        if mode in ("warm", "cold"):
            continue
        each = [recovered(*times) for times in zip(boots["cold"], boots[mode], boots["warm"])]
        known = [share for share in each if share is not None]
        figures["recovered"] = round(statistics.median(known), 3) if known else None
        figures["recovered_by_round"] = [None if share is None else round(share, 3) for share in each]
        of_medians = recovered(modes["cold"]["median_s"], figures["median_s"], modes["warm"]["median_s"])
        figures["recovered_of_medians"] = None if of_medians is None else round(of_medians, 3)
    return modes


def warmed(report):
    """From a warmer's report, in seconds since the kernel started: its first read, and when the last unit of each stage
    was warm."""
    if not report or report["end"] == "refused":
        return None
    first_s = report["first_read_uptime_s"]
    done = {stage["name"]: round(first_s + stage["started_s"] + stage["elapsed_s"], 3)
            for stage in report["stages"] if stage["started_s"] is not None}
    return {"end": report["end"], "first_read_s": round(first_s, 3), "stage_warm_s": done,
            "latency_us_p50": report["latency_us"]["p50"], "depth": report["depth"]}


def warmed_median(boots):
    """By kind of boot: the median moments of the warmer's first read and of the last unit of stage `ready`."""
    medians = {}
    for mode in {boot["mode"] for boot in boots}:
        each = [boot["warmed"] for boot in boots if boot["mode"] == mode and boot["warmed"]]
        ready = [one["stage_warm_s"]["ready"] for one in each if "ready" in one["stage_warm_s"]]
        if ready:
            medians[mode] = {"first_read_s": statistics.median(one["first_read_s"] for one in each),
                             "ready_warm_s": statistics.median(ready)}
    return medians


def overlap(profile, boots):
    """How much of each boot's units the profile has, how much of the profile each boot touches, and the cosine of both
    sets, as the paper in facts.md counts it; medians over boots."""
    each = []
    for touched in map(set, boots):
        both = len(profile & touched)
        if touched and profile:
            each.append((both / len(touched), both / len(profile), both / (len(touched) * len(profile)) ** 0.5))
    if not each:
        return None
    names = ("boot_in_profile", "profile_in_boot", "cosine")
    return {name: round(statistics.median(values), 4) for name, values in zip(names, zip(*each))}
