"""Which laws must hold for each attempt, from its dispatch to its last report?

`AttemptLaws` reads a log entry by entry and keeps its own records, which it compares with the
decisions of `decide`.  It records dispatched attempts, held claims, and attempts that were given up
and may still report.

E3: only a dispatched attempt can be claimed, and only once.  E5 and fencing: a report without the
current claim's nonce changes nothing; if its claim is not in the log, it also asks for attention.
E7: an attempt that was given up stays on record until it reports.  (Its lease ran out, or it could
not be stopped after its timeout.)  Rule 4: no undo begins while an attempt runs, and undos follow
the reverse order of completion.  Rule 6: an ended saga has no dispatched attempt.

No Redis, no clock.
"""

from __future__ import annotations

from collections import defaultdict

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import (
    Claimed,
    Entry,
    Failed,
    Lost,
    Report,
    Succeeded,
    Unroutable,
    Withdrawn,
)
from multiagents.core.states import ENDED, Kind, StepState
from multiagents.lab.simulator.laws.violations import law
from multiagents.saga.commands import Dispatch
from multiagents.saga.decide import Decision
from multiagents.saga.draft import evolve
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow

Claim = tuple[str, int, str]
"""Kind, attempt, nonce: as a step's row lists its lost attempts."""


def settled(saga: Saga) -> Saga:
    """The part of a saga that a fenced report must not change; it may add to ``attention``."""
    return evolve(saga, {"attention": (), "updated_at": 0})


class AttemptLaws:
    """Judges decisions in the order of the log.  Raises LawBroken."""

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._dispatched: set[AttemptRef] = set()
        self._known: set[tuple[str, Claim]] = set()
        """Every claim in the log, by step."""
        self._held: dict[tuple[Kind, str], str] = {}
        """The nonce of the running attempt, until its first report."""
        self._given_up: defaultdict[str, set[Claim]] = defaultdict(set)
        self._succeeded: list[str] = []
        self._undo_begun: set[str] = set()

    def judge(self, before: Saga, entry: Entry, decision: Decision) -> None:
        """Judge one decision."""
        match entry:
            case Claimed():
                self._claimed(entry, decision.saga)
            case Succeeded() | Failed() | Lost() if entry.step in before.steps:
                self._reported(before, entry, decision)
            case Unroutable() if entry.target:
                told = before.delivered or decision.saga.attention == before.attention
                law(told, f"{entry.id}: noted, although its outcome is lost (E5)")
                law(not decision.commands, f"{entry.id} gives {decision.commands}")
            case Withdrawn() | Unroutable():
                law(
                    entry.ref in self._dispatched,
                    f"{entry.id}: taken back, but not dispatched (E3)",
                )
                self._dispatched.remove(entry.ref)
                if isinstance(entry, Unroutable) and entry.kind is Kind.UNDO:
                    self._undo_begun.add(entry.step)
            case _:
                pass
        for command in decision.commands:
            if isinstance(command, Dispatch):
                self._dispatched.add(command.ref)
        if decision.saga.state in ENDED and not decision.saga.terminated:
            left = sorted(self._dispatched)
            law(not left, f"{decision.saga.state} by {entry.id}, with {left} dispatched (rule 6)")

    def _claimed(self, entry: Claimed, saga: Saga) -> None:
        law(entry.ref in self._dispatched, f"{entry.id}: claimed, but not dispatched (E3)")
        law(saga.steps[entry.step].of(entry.kind).nonce == entry.nonce, f"{entry.id} is not held")
        if entry.kind is Kind.UNDO:
            self._undo_claimed(entry, saga)
        self._dispatched.discard(entry.ref)
        self._held[entry.kind, entry.step] = entry.nonce
        self._known.add((entry.step, _claim(entry)))

    def _undo_claimed(self, entry: Claimed, saga: Saga) -> None:
        name = entry.step
        running = [step for kind, step in self._held if kind is Kind.RUN]
        law(saga.terminated or not running, f"undo of {name!r} began while {running} ran (rule 4)")
        if name in self._undo_begun:
            return
        self._undo_begun.add(name)
        if name not in self._succeeded:
            return
        for later in self._succeeded[self._succeeded.index(name) + 1 :]:
            waits = self._workflow.by_name[later].compensation and later not in self._undo_begun
            follows = name in self._workflow.ancestors(later) or not self._workflow.parallel_undo
            law(not (waits and follows), f"undo of {name!r} began before that of {later!r}")

    def _reported(self, before: Saga, entry: Report, decision: Decision) -> None:
        claim, given_up = _claim(entry), self._given_up[entry.step]
        holds = self._held.get((entry.kind, entry.step)) == entry.nonce
        if not holds and claim not in given_up:
            same = settled(before) == settled(decision.saga) and not decision.commands
            law(same, f"{entry.id} has no claim, but changed the saga (fencing)")
        if (entry.step, claim) not in self._known:
            law(decision.saga.attention, f"{entry.id} has an unknown nonce: no attention (E5)")
        if holds:
            del self._held[entry.kind, entry.step]
        if isinstance(entry, Lost) or (isinstance(entry, Failed) and entry.running):
            if holds:
                given_up.add(claim)
        else:
            given_up.discard(claim)
        on_record = set(decision.saga.steps[entry.step].lost)
        law(on_record == given_up, f"{entry.id}: {given_up} may report, on record {on_record}")
        first = before.steps[entry.step].run.state is not StepState.SUCCEEDED
        if holds and first and isinstance(entry, Succeeded) and entry.kind is Kind.RUN:
            self._succeeded.append(entry.step)


def _claim(entry: Claimed | Report) -> Claim:
    return (entry.kind.value, entry.attempt, entry.nonce)
