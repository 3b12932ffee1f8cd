"""Charts of the results, as SVG that is the same for the same figures."""

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

from bench.report import RESULTS
from bench.throttle import BIN, Taken

Curve = tuple[list[str], list[float], list[float], list[float]]
"""Labels of the points; median, least and greatest."""

BLUE, GREY, AMBER = "#2b6cb0", "#718096", "#f6ad55"


def save(name: str, curves: dict[str, Curve]) -> None:
    """bench/results/<name>.svg: a panel for each curve, its title the key."""
    _set_style()
    figure, panels = plt.subplots(
        1, len(curves), figsize=(2.6 * len(curves), 2.8), sharey=True, squeeze=False
    )
    for panel, (title, (labels, middle, least, greatest)) in zip(
        panels[0], curves.items(), strict=True
    ):
        spread = [
            [m - low for m, low in zip(middle, least, strict=True)],
            [high - m for m, high in zip(middle, greatest, strict=True)],
        ]
        panel.errorbar(range(len(labels)), middle, spread, color=BLUE, marker="o", capsize=3)
        panel.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
        panel.set_xticks(range(len(labels)), labels, rotation=20)
        panel.set_title(title)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylim(bottom=0)
    panels[0][0].set_ylabel("cost of a narrow row,\nbase = 1")
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def _set_style() -> None:
    mpl.rcParams.update({"svg.hashsalt": "pymig", "font.size": 9, "svg.fonttype": "none"})


def save_throttle(name: str, taken: Taken) -> None:
    """bench/results/<name>.svg: rows moved and the latency of ingest over time, holds shaded."""
    _set_style()
    end = max(run.ended for run in taken.runs)
    bins = [taken.started + BIN * n for n in range(int((end - taken.started) / BIN))]
    moved = [
        sum(rows for at, rows in taken.chunks if start <= at < start + BIN) / BIN / 1000
        for start in bins
    ]
    slow = [1000 * taken.ingest_p99(start, start + BIN) for start in bins]
    seconds = [start - taken.started for start in bins]
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.5, 3.8), sharex=True)
    above.fill_between(seconds, moved, step="post", color=BLUE, alpha=0.8, linewidth=0)
    above.set_ylabel("history moved,\n1,000 rows a second")
    below.plot(seconds, slow, color=BLUE, linewidth=1.2)
    below.set_ylabel("ingest, p99\nof 0.25 s, ms")
    below.set_xlabel("seconds")
    for panel in (above, below):
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        for hold in taken.holds:
            began, ended = hold.began - taken.started, hold.ended - taken.started
            panel.axvspan(began, ended, color=AMBER, alpha=0.35, linewidth=0)
    top = above.get_ylim()[1]
    for hold in taken.holds:
        above.text(hold.began - taken.started + 0.1, top, hold.condition, va="bottom")
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
