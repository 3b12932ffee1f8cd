"""Medians, spreads and ratios; JSON and a Markdown table."""

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def ratios(seconds: dict[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Of every figure: median seconds, and median, least and greatest ratio to the base's median
    of the same run (repetition by repetition where both have as many)."""
    result = {}
    for name, taken in seconds.items():
        bases = seconds[base]
        pairs = zip(taken, bases, strict=False) if len(taken) <= len(bases) else ()
        each = [t / b for t, b in pairs] or [t / statistics.median(bases) for t in taken]
        result[name] = {
            "seconds": statistics.median(taken),
            "ratio": statistics.median(each),
            "least": min(each),
            "greatest": max(each),
            "repeats": len(taken),
        }
    return result


def table(title: str, base: str, figures: dict[str, dict[str, float]]) -> str:
    """A Markdown table, in the order of the run."""
    lines = [
        f"### {title}",
        "",
        f"| | × {base} | spread | seconds | repeats |",  # noqa: RUF001
        "|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {f['ratio']:.2f} | {f['least']:.2f}–{f['greatest']:.2f} "  # noqa: RUF001
        f"| {f['seconds']:.3f} | {f['repeats']:.0f} |"
        for name, f in figures.items()
    ]
    return "\n".join([*lines, ""])


def save(name: str, data: dict[str, Any], markdown: str) -> Path:
    """bench/results/<name>.json and .md."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    path = RESULTS / f"{name}.md"
    path.write_text(markdown)
    return path
