"""What in a saga waits for an operator, since when, why, and which commands help?

`KINDS` is the one table: each kind finds its items in a `Case`.  A damaged saga has no case;
`damaged` makes its item.  Pure; `operations.attention` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from multiagents.core.clock import iso
from multiagents.core.entries import Requested
from multiagents.core.states import Kind, SagaState
from multiagents.operations.projection import DAMAGED
from multiagents.saga.dead_letters import dead_letters_of, parked_at
from multiagents.saga.draft import parked_note
from multiagents.saga.outcome import left_of
from multiagents.saga.state import Saga
from multiagents.saga.targets import parked_notes
from multiagents.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Case:
    """A saga that waits for an operator, perhaps for several reasons."""

    saga: Saga
    workflow: Workflow
    since_ms: int
    """The time since when it asks for attention."""
    asked: Requested | None = None
    """The operator's action that moved it to its state."""
    is_changed: bool = False
    """Whether its workflow's name has another definition now; the saga keeps its own."""


OLD_DEFINITION = "; the saga keeps the definition with which it began, which has changed since"


@dataclass(frozen=True, slots=True)
class Awaited:
    """One item that waits."""

    kind: str
    reason: str
    since_ms: int
    """0: unknown."""
    commands: tuple[str, ...]
    """The commands that help, the likely one first."""
    step: str | None = None
    by: str = ""
    """The operator who paused or terminated it."""
    why: str = ""
    """The operator's reason."""
    error: Mapping[str, str] | None = None
    """The last error of a parked step or undo."""

    def row(self, saga_id: str, workflow: str, state: str, *, now_ms: int) -> dict[str, Any]:
        """As JSON shows it."""
        known = self.since_ms > 0
        return {
            "kind": self.kind,
            "transaction_id": saga_id,
            "workflow": workflow,
            "state": state,
            "step": self.step,
            "since": iso(self.since_ms),
            "age_s": max(0, now_ms - self.since_ms) / 1000 if known else None,
            "reason": self.reason,
            "by": self.by or None,
            "why": self.why or None,
            "error": self.error,
            "commands": list(self.commands),
        }


def _parked(case: Case) -> Iterator[Awaited]:
    saga = case.saga
    for step, kind in dead_letters_of(saga):
        work = saga.steps[step].of(kind)
        error = f"{work.error.type}: {work.error.message}" if work.error else "not known"
        times = "1 attempt" if work.attempt == 1 else f"{work.attempt} attempts"
        what = f"{saga.id} {step}"
        yield Awaited(
            "step" if kind is Kind.RUN else "undo",
            f"{error} (after {times}){OLD_DEFINITION if case.is_changed else ''}",
            parked_at(saga, step, kind),
            (
                f"multiagents retry {what}",
                f'multiagents dead-letters skip {what} --reason "..."',
                f'multiagents dead-letters resolve {what} --reason "..."',
            ),
            step=step,
            error=work.error.to_dict() if work.error else None,
        )


def _paused(case: Case) -> Iterator[Awaited]:
    if case.saga.state is SagaState.PAUSED:
        commands = (f"multiagents resume {case.saga.id}", f"multiagents cancel {case.saga.id}")
        yield _asked(case, "paused", "paused", commands)


def _terminated(case: Case) -> Iterator[Awaited]:
    if not case.saga.terminated or not case.saga.attention:
        return
    left = left_of(case.workflow, case.saga)
    told = "terminated without undo"
    more = [note for note in case.saga.attention if note != told]
    stays = f"left as they are: {', '.join(left)}" if left else "no step is known to be done"
    found = _asked(case, "terminated", told, (_resolve(case.saga),))
    yield Awaited(
        found.kind,
        "; ".join([found.reason, stays, *more]),
        found.since_ms,
        found.commands,
        by=found.by,
        why=found.why,
    )


def _asked(case: Case, kind: str, told: str, commands: tuple[str, ...]) -> Awaited:
    """The item of an operator's action."""
    asked = case.asked
    if asked is None:
        return Awaited(kind, told, case.since_ms, commands)
    who = f" by {asked.by}" if asked.by else ""
    why = f": {asked.reason}" if asked.reason else ""
    text = f"{told}{who}{why}"
    return Awaited(kind, text, asked.at_ms, commands, by=asked.by, why=asked.reason)


def _untold(case: Case) -> Iterator[Awaited]:
    notes = parked_notes(case.saga)
    if notes:
        commands = (f"multiagents dead-letters retry {case.saga.id}", _resolve(case.saga))
        yield Awaited("end", "; ".join(notes), case.since_ms, commands)


def _noted(case: Case) -> Iterator[Awaited]:
    saga = case.saga
    told = {*parked_notes(saga), *(parked_note(kind, step) for step in saga.steps for kind in Kind)}
    notes = [note for note in saga.attention if note not in told]
    if notes and not saga.terminated:
        commands = (f"multiagents explain {saga.id}", _resolve(saga))
        yield Awaited("note", "; ".join(notes), case.since_ms, commands)


def _resolve(saga: Saga) -> str:
    return f'multiagents dead-letters resolve {saga.id} --reason "..."'


OfKind = Callable[[Case], Iterable[Awaited]]
PAUSED: tuple[OfKind, ...] = (_paused,)
"""The kinds of items for sagas in the index of paused ones."""
KINDS: tuple[OfKind, ...] = (_parked, _terminated, _untold, _noted)
"""The kinds of items for sagas in the index of those that ask for attention."""


def damaged(saga_id: str, problems: Iterable[str]) -> Awaited:
    """The item of a damaged saga, of which nothing else is known."""
    command = f'multiagents remove {saga_id} --reason "..."'
    return Awaited(DAMAGED, "; ".join(problems), 0, (command,))
