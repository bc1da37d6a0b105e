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
