"""How does the table look as a picture?  ``python plot.py TABLE.csv PICTURE.svg``.

This script runs in an environment of its own with matplotlib, and imports nothing of the bench.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt

WORKLOADS = {
    "chain10": "chain of 10",
    "chain100": "chain of 100",
    "fanout10": "fan-out of 10 + join",
}
HEIGHT = 0.26
"""The height of a bar; three bars and a gap make a row."""


def draw(table: Path, picture: Path) -> None:
    """Draw bars for each peer, each with a line from its minimum to its maximum."""
    with table.open(newline="") as source:
        found = list(csv.DictReader(source))
    matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same table gives the same file
    figure, axes = plt.subplots(figsize=(9, 0.75 * len(found) + 1.5), layout="constrained")
    for index, (workload, label) in enumerate(WORKLOADS.items()):
        _bars(axes, found, workload, label, offset=(index - 1) * HEIGHT)
    axes.set_yticks(range(len(found)), [f"{row['title']} {row['version']}" for row in found])
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel("steps a second")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper right")
    figure.savefig(picture, metadata={"Date": None})


def _bars(
    axes: plt.Axes, found: list[dict[str, str]], workload: str, label: str, *, offset: float
) -> None:
    at = [number for number, row in enumerate(found) if row[f"{workload}_steps_per_s"]]
    mid, low, high = (
        [float(found[number][f"{workload}_{part}"]) for number in at]
        for part in ("steps_per_s", "min", "max")
    )
    spread = [
        [m - small for m, small in zip(mid, low, strict=True)],
        [big - m for m, big in zip(mid, high, strict=True)],
    ]
    places = [number + offset for number in at]
    axes.barh(places, mid, HEIGHT, xerr=spread, label=label, error_kw={"alpha": 0.5, "lw": 1})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
