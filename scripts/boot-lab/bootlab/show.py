"""What was measured, as a table and as a plot.

Holds: pure functions from results to text; the plot is an SVG without scripts or fonts of its own.
"""

from html import escape

NAMES = {
    "warm": "already warm",
    "cold": "cold",
    "fio": "cold, documented fio line",
    "ebs-prewarm": "cold, ebs-prewarm",
    "history": "cold, in the order of history",
    "address": "cold, in the order of addresses",
    "recorded": "cold, recorded",
}
COLOURS = {"warm": "#4c9f70", "cold": "#9a9a9a", "fio": "#d08c3c", "ebs-prewarm": "#3b6fb6", "history": "#7a6fb6",
           "address": "#b66f9a", "recorded": "#777777"}


def seconds(value):
    return "-" if value is None else f"{value:.2f} s"


def cases(results):
    """A line for each case of no harm: its median and the latest that it may be, the warmer's word and processor time."""
    width = max((len(each["case"]) for each in results), default=0)
    return "\n".join(
        f"{each['case']:<{width}}  {seconds(each['ready_s']):>9} of {seconds(each['limit_s']):>9}, boots: {len(each['times_s'])}  "
        f"warmer: {each['end'] or 'no report':<10} {processor(each['cpu_s']):>7}  " + ("; ".join(each["wrong"]) or "holds")
        for each in results
    )


def processor(cpu_s):
    return "" if cpu_s is None else f"{cpu_s * 1000:.0f} ms"


def table(result):
    rows = [("boot", "ready", "median", "least", "most", "recovered")]
    for mode, figures in result["modes"].items():
        share = figures.get("recovered")
        rows.append((
            NAMES.get(mode, mode), f"{figures['ready']}/{figures['rounds']}", seconds(figures["median_s"]),
            seconds(figures["min_s"]), seconds(figures["max_s"]), "" if share is None else f"{share:.2f}",
        ))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = (cell.ljust(width) if column == 0 else cell.rjust(width)
                          for column, (cell, width) in enumerate(zip(row, widths)))
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def notes(result):
    """What else is to be said of the boots, a line each."""
    lines = []
    for mode, moments in result["warmed"].items():
        lines.append(f"{NAMES.get(mode, mode)}: first read {seconds(moments['first_read_s'])} after kernel start, all of "
                     f"stage `ready` warm after {seconds(moments['ready_warm_s'])}")
    if overlap := result["overlap"]:
        lines.append(f"of a boot's units the profile has {overlap['boot_in_profile']:.2%}, of the profile's a boot touches "
                     f"{overlap['profile_in_boot']:.2%}; cosine {overlap['cosine']:.3f}")
    return "".join(line + "\n" for line in lines)


def plot(result):
    """A line for each kind of boot, a dot for each boot, a bar at the median; seconds since the kernel started."""
    modes = result["modes"]
    most = max((figures["max_s"] or 0 for figures in modes.values()), default=0) or 1
    left, width, row, top = 240, 520, 44, 46
    x = lambda value: left + width * value / (most * 1.05)
    height = top + row * len(modes) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 110}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="22" font-size="15">{escape(result["title"])}</text>',
    ]
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if most / step <= 8)
    for tick in range(0, int(most) + 1, step):
        parts.append(f'<line x1="{x(tick):.1f}" y1="{top - 10}" x2="{x(tick):.1f}" y2="{height - 30}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 12}" text-anchor="middle" fill="#555">{tick} s</text>')
    for index, (mode, figures) in enumerate(modes.items()):
        y = top + row * index + 14
        colour = COLOURS.get(mode, "#777")
        parts.append(f'<text x="{left - 10}" y="{y + 5}" text-anchor="end">{escape(NAMES.get(mode, mode))}</text>')
        median = figures["median_s"]
        if median is None:
            continue
        parts.append(f'<rect x="{left}" y="{y - 9}" width="{x(median) - left:.1f}" height="18" fill="{colour}" opacity="0.55"/>')
        for time in figures["times_s"]:
            if time is not None:
                parts.append(f'<circle cx="{x(time):.1f}" cy="{y}" r="3.5" fill="{colour}" stroke="white"/>')
        label = f"{median:.1f} s"
        if figures.get("recovered") is not None:
            label += f", {figures['recovered']:.2f}"
        end = max(x(median), x(figures["max_s"]))
        parts.append(f'<text x="{end + 8:.1f}" y="{y + 5}">{label}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
