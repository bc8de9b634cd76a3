"""What became of the attempt before the one that is under way?

A step that is tried again shows its present attempt; why the one before is over stands in the log.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from multiagents.core.clock import iso
from multiagents.core.entries import Claimed, Entry, Failed, Lost
from multiagents.core.exceptions import told_of_error
from multiagents.core.states import Kind
from multiagents.core.texts import sentence
from multiagents.saga.state import Saga


@dataclass(frozen=True, slots=True)
class Earlier:
    """An attempt that was lost, or has failed."""

    attempt: int
    at_ms: int
    worker: str = ""
    """Its host; empty: not known."""
    error: str = ""
    """Empty: it was lost."""

    def told(self, when: str) -> str:
        """The sentence; ``when``: its time."""
        if self.error:
            return f"Attempt {self.attempt} failed at {when}: {sentence(self.error)}"
        who = self.worker or "its worker"
        return f"Attempt {self.attempt} was lost at {when}: {who} was silent until its lease ended."

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        end = {"attempt": self.attempt, "at": iso(self.at_ms), "worker": self.worker or None}
        return {**end, "error": self.error or None}


Earliers = Mapping[tuple[Kind, str], Earlier]


def earlier_attempts(saga: Saga, entries: Iterable[Entry]) -> Earliers:
    """By kind and step, the last end of an attempt before the present one."""
    hosts: dict[str, str] = {}
    found: dict[tuple[Kind, str], Earlier] = {}
    for entry in entries:
        if isinstance(entry, Claimed):
            hosts[entry.nonce] = entry.worker
        elif isinstance(entry, Lost | Failed) and _is_before(saga, entry):
            error = entry.error if isinstance(entry, Failed) else None
            why = told_of_error(error.to_dict()) if error else ""
            host = hosts.get(entry.nonce, "")
            found[entry.kind, entry.step] = Earlier(entry.attempt, entry.at_ms, host, why)
    return found


def _is_before(saga: Saga, entry: Lost | Failed) -> bool:
    run = saga.steps.get(entry.step)
    late = isinstance(entry, Failed) and entry.part > 0
    return run is not None and not late and entry.attempt < run.of(entry.kind).attempt
