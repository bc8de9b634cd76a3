"""How did the attempts before the present one end?

The state of a saga keeps the error of the present attempt only; the log has the others.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from multiagents.core.clock import iso
from multiagents.core.entries import Claimed, Entry, Failed, Failure, Lost
from multiagents.core.exceptions import told_of_error
from multiagents.core.states import Kind
from multiagents.core.texts import sentence
from multiagents.saga.reports import silence_of
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow

Key = tuple[Kind, str]
"""The kind of the attempt, and its step."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """An attempt that was lost or has failed."""

    attempt: int
    at_ms: int
    worker: str = ""
    """Its worker process; empty: unknown."""
    error: Failure | None = None
    """None: it was lost."""

    def told(self, when: str) -> str:
        """The sentence; ``when``: its time."""
        if self.error:
            why = sentence(told_of_error(self.error.to_dict()))
            return f"Attempt {self.attempt} failed at {when}: {why}"
        who = self.worker or "its worker"
        return f"Attempt {self.attempt} was lost at {when}: {who} was silent until its lease ended."

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        why = told_of_error(self.error.to_dict()) if self.error else None
        end = {"attempt": self.attempt, "at": iso(self.at_ms), "worker": self.worker or None}
        return {**end, "error": why}


Earliers = Mapping[Key, Earlier]


def earlier_attempts(saga: Saga, entries: Iterable[Entry]) -> Earliers:
    """The last end of an attempt before the present one, by kind and step."""
    hosts: dict[str, str] = {}
    found: dict[Key, Earlier] = {}
    for entry in entries:
        if isinstance(entry, Claimed):
            hosts[entry.nonce] = entry.worker
        elif isinstance(entry, Lost | Failed) and _is_before(saga, entry):
            error = entry.error if isinstance(entry, Failed) else None
            host = hosts.get(entry.nonce, "")
            found[entry.kind, entry.step] = Earlier(entry.attempt, entry.at_ms, host, error)
    return found


def _is_before(saga: Saga, entry: Lost | Failed) -> bool:
    run = saga.steps.get(entry.step)
    late = isinstance(entry, Failed) and entry.part > 0
    return run is not None and not late and entry.attempt < run.of(entry.kind).attempt


def has_earlier_attempts(saga: Saga) -> bool:
    """Whether an attempt may have ended whose error the state no longer has."""
    works = (work for step in saga.steps.values() for work in (step.run, step.undo))
    return any(work.attempt > 1 and work.error is None for work in works)


def last_errors(saga: Saga, workflow: Workflow, entries: Iterable[Entry]) -> Mapping[Key, Failure]:
    """The error of the last attempt before the present one, by kind and step."""
    ends = earlier_attempts(saga, entries).items()
    return {key: end.error or silence_of(workflow, *key) for key, end in ends}
