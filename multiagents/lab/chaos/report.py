"""What does a chaos run find?

Values only.  `ChaosReport.to_dict` is what ``--json`` prints;
docs/explanation/chaos.md names its fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from multiagents.core.clock import iso
from multiagents.lab.chaos.audit import Violation
from multiagents.lab.chaos.plan import ChaosPlan, FaultKind
from multiagents.lab.chaos.recovery import Fault, Recovery


@dataclass(frozen=True, slots=True)
class ChaosReport:
    """The figures and violations of one run."""

    plan: ChaosPlan
    started: int
    repeated_starts: int
    """Starts whose first try got no answer."""
    states: Mapping[str, int]
    """Sagas by state; ``parked`` ones count as that alone."""
    undone_by_faults: int
    """Sagas that would have completed without the faults."""
    injected: Sequence[Fault]
    recovery: Mapping[str, Recovery]
    unexplained_losses: int
    """Leases that ran out although their worker was neither killed nor frozen."""
    absorbed: Mapping[str, Mapping[str, int]]
    ended_by_themselves: Sequence[str]
    """A line for each worker that ended without a kill."""
    seconds: float
    """From the first start until all sagas were at rest."""
    found: Sequence[Violation]
    """The violations that the audit found."""

    @property
    def violations(self) -> list[Violation]:
        """The audit's violations, and each deviation of the run from its plan."""
        return [*self.found, *self._not_as_asked(), *self._unasked()]

    @property
    def ok(self) -> bool:
        """Whether there is no violation."""
        return not self.violations

    @property
    def done(self) -> Mapping[FaultKind, int]:
        """The number of injected faults, by kind."""
        return Counter(fault.kind for fault in self.injected)

    def _not_as_asked(self) -> Iterator[Violation]:
        if self.started != self.plan.sagas:
            detail = f"{self.started} of {self.plan.sagas} sagas were started"
            yield Violation("not as asked", "", detail)
        for kind, count in self.plan.asked.items():
            if self.done[kind] != count:
                detail = f"{kind.value}: {self.done[kind]} of {count} faults occurred"
                yield Violation("not as asked", "", detail)

    def _unasked(self) -> Iterator[Violation]:
        for text in self.ended_by_themselves:
            yield Violation("worker ended by itself", "", text)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON shows it."""
        plan = {
            **asdict(self.plan),
            "keep": None if self.plan.keep is None else str(self.plan.keep),
        }
        return {
            "ok": self.ok,
            "plan": plan,
            "seconds": round(self.seconds, 1),
            "sagas": {
                "started": self.started,
                "repeated_starts": self.repeated_starts,
                "states": dict(self.states),
                "undone_by_faults": self.undone_by_faults,
            },
            "faults": {
                kind.value: {"asked": count, "done": self.done[kind]}
                for kind, count in self.plan.asked.items()
            },
            "injected": [
                {"kind": fault.kind.value, "at": iso(fault.at_ms), "worker": fault.worker or None}
                for fault in self.injected
            ],
            "recovery": {name: asdict(one) for name, one in self.recovery.items()},
            "unexplained_losses": self.unexplained_losses,
            "absorbed": {word: dict(counts) for word, counts in self.absorbed.items()},
            "violations": [asdict(violation) for violation in self.violations],
        }
