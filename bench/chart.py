"""Charts of the results, as SVG that is the same for the same figures."""

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

from bench.report import RESULTS

Curve = tuple[list[str], list[float], list[float], list[float]]
"""Labels of the points; median, least and greatest."""

BLUE, GREY = "#2b6cb0", "#718096"


def save(name: str, curves: dict[str, Curve]) -> None:
    """bench/results/<name>.svg: a panel for each curve, its title the key."""
    mpl.rcParams.update({"svg.hashsalt": "pymig", "font.size": 9, "svg.fonttype": "none"})
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
