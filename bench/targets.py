"""Do the figures of `multiagents bench` meet the project's targets?

    multiagents bench --json | python -m bench.targets

This prints a line for each figure with a target; the exit code is 1 if one is missed.  The command
`bench` itself only reports figures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """The limit of a figure.  ``of``: the median ratio, or the saga's own value."""

    limit: float
    at_least: bool = True
    of: Literal["ratio", "saga"] = "ratio"

    def met(self, found: Mapping[str, Any]) -> bool | None:
        """Whether a figure meets its limit and no saga failed; None: the figure is unknown."""
        value = found[self.of]
        if value is None:
            return None
        good = value >= self.limit if self.at_least else value <= self.limit
        return bool(good) and not found["errors"]["saga"]


TARGETS = {
    "chain10": Target(4),
    "plain10": Target(1.4),
    "chain100": Target(7),
    "fan10": Target(2),
    "wide1000": Target(2),
    "latency": Target(0.6, at_least=False),
    "growth.chain": Target(1.3, at_least=False),
    "growth.fan": Target(1.3, at_least=False),
    "start": Target(1),
    "memory.flight": Target(8, at_least=False, of="saga"),
    "memory.ended": Target(3, at_least=False, of="saga"),
    "waiting": Target(1.3, at_least=False),
    "leases": Target(0, at_least=False, of="saga"),
    "recovery": Target(7, at_least=False, of="saga"),
}
"""Target by figure: memory in KiB, recovery in seconds, leases as the number of lost ones."""
WORDS = {True: "met", False: "MISSED", None: "unknown"}


def judged(lines: Iterable[str]) -> list[tuple[str, bool | None]]:
    """A line for each figure with a target, and whether the target is met."""
    told = []
    for found in map(json.loads, lines):
        target = TARGETS.get(found["name"])
        if target is not None:
            met = target.met(found)
            sign = ">=" if target.at_least else "<="
            of = f"{target.of} {found[target.of]}, wanted {sign} {target.limit:g}"
            told.append((f"{found['name']}: {WORDS[met]} ({of})", met))
    return told


def main() -> int:
    """Judge the figures on stdin."""
    told = judged(sys.stdin)
    for line, _ in told:
        print(line)
    return int(any(met is False for _, met in told))


if __name__ == "__main__":
    sys.exit(main())
