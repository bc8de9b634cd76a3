"""Does `multiagents bench` find what we hold ourselves to?

    multiagents bench --json | python -m bench.targets

Prints a line for each figure that has a target; exit code 1 if one is missed.  The command itself
reports and does not judge.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be.  ``of``: the median ratio, or the saga's own value."""

    limit: float
    at_least: bool = True
    of: Literal["ratio", "saga"] = "ratio"

    def met(self, found: Mapping[str, Any]) -> bool | None:
        """Whether a figure is good enough, without an error of ours; None: it is not known."""
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
"""By a figure's name.  Memory in KiB, recovery in seconds, leases in lost ones."""
WORDS = {True: "met", False: "MISSED", None: "not known"}


def judged(lines: Iterable[str]) -> list[tuple[str, bool | None]]:
    """What is to be said of each figure, and whether its target is met."""
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
