"""How do the lines of a bench run become a table?

Pure: recorded lines in, text out.  A line is a peer's output (see `bench.harness`) with the number
of its ``round``.  The machine is a dict that the runner records once.  Rules:

- A figure is the median over the rounds, with its minimum and maximum.
- A ratio is the median of each round's ratio to the base peer in the same round, because the speed
  of a machine drifts slowly.
- A workload that a peer did not run has no figure, never a zero.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BASE = "celery default"
"""The divisor of the ratios."""
WORKLOADS = {
    "chain10": "chain of 10",
    "chain100": "chain of 100",
    "fanout10": "fan-out of 10 + join",
}

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """Steps per second of one peer at one workload, over the rounds."""

    median: float
    low: float
    high: float
    ratio: float | None
    """The ratio to the base peer; None if that ran in none of these rounds."""
    cpu_ms: float
    """CPU time per step, of client, workers and server together: the median of the rounds."""


@dataclass(frozen=True, slots=True)
class Row:
    """A peer in one of its variants."""

    name: str
    title: str
    version: str
    settings: str
    durable: str
    after_sigkill: str
    compensation: str
    figures: Mapping[str, Figure]


def rows(lines: Iterable[Line]) -> list[Row]:
    """One row for each peer and variant, in the order of their first lines."""
    by_name: dict[str, list[Line]] = {}
    for line in lines:
        by_name.setdefault(name_of(line), []).append(line)
    base = _rates(by_name.get(BASE, ()))
    return [_row(name, found, base) for name, found in by_name.items()]


def name_of(line: Line) -> str:
    """``celery default``."""
    return f"{line['peer']} {line['variant']}"


def _row(name: str, lines: Sequence[Line], base: Mapping[tuple[str, int], float]) -> Row:
    about = lines[0]
    run = {line["workload"] for line in lines}
    found = {w: _figure(w, lines, base) for w in WORKLOADS if w in run}
    return Row(
        name,
        about["title"],
        about["version"],
        about["settings"],
        **about["guarantees"],
        figures=found,
    )


def _rates(lines: Iterable[Line]) -> dict[tuple[str, int], float]:
    return {(line["workload"], line["round"]): float(line["steps_per_s"]) for line in lines}


def _figure(workload: str, lines: Iterable[Line], base: Mapping[tuple[str, int], float]) -> Figure:
    here = [line for line in lines if line["workload"] == workload]
    own = _rates(here)
    ratios = [rate / base[key] for key, rate in own.items() if key in base]
    return Figure(
        statistics.median(own.values()),
        min(own.values()),
        max(own.values()),
        statistics.median(ratios) if ratios else None,
        statistics.median(line["cpu_ms_per_step"] for line in here),
    )


# ---- CSV ----


PARTS = ("steps_per_s", "min", "max", "ratio", "cpu_ms")


def to_csv(found: Sequence[Row], machine: Mapping[str, Any]) -> str:
    """A line for each row, with all its data in columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures = [f"{w}_{part}" for w in WORKLOADS for part in PARTS]
    facts = ("settings", "durable", "after_sigkill", "compensation")
    writer.writerow(["name", "title", "version", *figures, *facts, *machine])
    for row in found:
        numbers = [number for w in WORKLOADS for number in _numbers(row.figures.get(w))]
        said = [getattr(row, fact) for fact in facts]
        writer.writerow([row.name, row.title, row.version, *numbers, *said, *machine.values()])
    return out.getvalue()


def _numbers(figure: Figure | None) -> tuple[float | str, ...]:
    if figure is None:
        return ("",) * len(PARTS)
    ratio = "" if figure.ratio is None else round(figure.ratio, 2)
    return (
        round(figure.median, 1),
        round(figure.low, 1),
        round(figure.high, 1),
        ratio,
        figure.cpu_ms,
    )


# ---- Markdown ----


def to_markdown(found: Sequence[Row], machine: Mapping[str, Any]) -> str:
    """The machine, the table, and the settings of each peer."""
    heads = [
        "Peer",
        *WORKLOADS.values(),
        "CPU, ms a step",
        "Durable",
        "Worker killed (SIGKILL)",
        "Compensation",
    ]
    body = [
        [
            f"{row.title} {row.version}",
            *(_shown(row.figures.get(w)) for w in WORKLOADS),
            _cpu(row),
            row.durable,
            row.after_sigkill,
            row.compensation,
        ]
        for row in found
    ]
    lines = [_table_line(heads), "|---|" + "---:|" * (len(WORKLOADS) + 1) + "---|" * 3]
    settings = [f"- {row.title}: {row.settings}." for row in found]
    parts = [
        _machine(machine),
        "\n".join([*lines, *map(_table_line, body)]),
        "Settings:",
        "\n".join(settings),
    ]
    return "\n\n".join(parts) + "\n"


def _machine(machine: Mapping[str, Any]) -> str:
    facts = "; ".join(f"{key} {value}" for key, value in machine.items())
    return (
        "Steps a second, median of the rounds (smallest–largest), and the median ratio to the"
        " Celery chain or chord of the same round. CPU: client, workers and server together, in"
        f" the chain of 10. {facts}."
    )


def _shown(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    ratio = "" if figure.ratio is None else f", {figure.ratio:.2f} ×"
    return f"{figure.median:,.0f} ({figure.low:,.0f}–{figure.high:,.0f}){ratio}"


def _cpu(row: Row) -> str:
    figure = row.figures.get("chain10")
    return "–" if figure is None else f"{figure.cpu_ms:.2f}"


def _table_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
