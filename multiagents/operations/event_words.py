"""Which words describe the events of a saga to users?

``WORDS`` is the one table: history, demo, dev and watch use it.  States keep their own names
(docs/explanation/concepts.md); only an undo that succeeded is called undone.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from multiagents.core.exceptions import told_of_error
from multiagents.core.states import Kind, StepState, UndoState
from multiagents.saga.commands import DEADLINE, parse_retry_timer

WORDS: Mapping[str, str] = {
    "started": "started",
    "step_claimed": "started",
    "step_succeeded": "succeeded",
    "step_failed": "failed",
    "step_lost": "lost",
    "step_withdrawn": "withdrawn",
    "step_unroutable": "no worker",
    "undo_claimed": "undo started",
    "undo_succeeded": "undone",
    "undo_failed": "undo failed",
    "undo_lost": "undo lost",
    "undo_withdrawn": "undo withdrawn",
    "undo_unroutable": "undo no worker",
    "end_unroutable": "callback refused",
    "timer": "retries",
    "asked": "asked",
}
"""By type of event; for ``saga_…`` the word is the state."""
UNDO_RETRIES, DEADLINE_OVER = "undo retries", "deadline over"
"""The words for timers of undos and of the saga."""
_ENDS_BADLY = ("_failed", "_lost", "_unroutable")
"""The events that may park a step; a late report of success comes when it is already parked."""
SAGA = "saga"
"""Stands in the place of a step for events of the whole saga."""


class Happened(NamedTuple):
    """An event in words."""

    step: str
    attempt: int | None
    word: str
    rest: str = ""
    """The error, or the operator and the reason."""


def happened(event: Mapping[str, Any]) -> Happened:
    """The words for an event of a saga's history."""
    kind, data = str(event["type"]), event["data"]
    if kind == "timer":
        return _timer(str(data.get("timer", "")))
    step = event["step"] or SAGA
    if kind == "asked":
        return Happened(step, None, *_asked(data))
    word = WORDS.get(kind) or kind.removeprefix("saga_")
    if data.get("state") == StepState.PARKED and kind.endswith(_ENDS_BADLY):
        word = f"{word}, parked"
    error = data.get("error")
    rest = told_of_error(error) if error else ""
    return Happened(step, event["attempt"], word, rest)


def word_of(kind: Kind, entry: str) -> str:
    """The word for an entry about a step or an undo; ``entry``: its type, such as ``failed``."""
    return WORDS[f"{'step' if kind is Kind.RUN else 'undo'}_{entry}"]


def undo_word(state: str) -> str:
    """The state of an undo as users see it."""
    return WORDS["undo_succeeded"] if state == UndoState.SUCCEEDED else state


def _timer(timer: str) -> Happened:
    if timer == DEADLINE:
        return Happened(SAGA, None, DEADLINE_OVER)
    ref = parse_retry_timer(timer)
    return Happened(ref.step, None, WORDS["timer"] if ref.kind is Kind.RUN else UNDO_RETRIES)


def _asked(data: Mapping[str, Any]) -> tuple[str, str]:
    """``cancel asked`` and ``by ada: customer called``."""
    by = f"by {data['by']}" if data.get("by") else ""
    return f"{data['command']} {WORDS['asked']}", ": ".join(filter(None, (by, data.get("reason"))))
