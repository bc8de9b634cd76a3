"""How are the settled dead letters of one saga reported?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multiagents.cli.output import emit, say
from multiagents.cli.session import Session

Letter = Mapping[str, Any]

SETTLED = {"retry": "is tried again", "skip": "marked skipped", "resolve": "marked resolved"}
PARKED_AGAIN = "was tried again, failed and is parked again"
"""For a letter that was parked again before the saga was read."""
WITHOUT_LETTERS = {
    "retry": "the refused callbacks of its end are sent again",
    "resolve": "its attention is closed",
}
"""The effect of these actions when no step and no undo is parked."""


def settle_one(
    session: Session,
    decision: str,
    saga_id: str,
    step: str,
    *,
    by: str | None,
    reason: str,
    as_json: bool,
) -> None:
    """Retry, skip or resolve the dead letters of a saga, and report which."""
    if as_json:
        emit(session.call(decision, saga_id, step, by=by, reason=reason))
        return
    before = session.call("dead_letters", saga_id=saga_id, limit=None)
    saga = session.call(decision, saga_id, step, by=by, reason=reason)
    after = session.call("dead_letters", saga_id=saga["transaction_id"], limit=None)
    say(settled(decision, before, after, saga))


def settled(
    decision: str, before: Sequence[Letter], after: Sequence[Letter], saga: Mapping[str, Any]
) -> str:
    """The settled letters, the state of the saga, and what still waits."""
    left = {_named(letter) for letter in after}
    gone = [letter for letter in before if _named(letter) not in left]
    again = {_of(letter) for letter in after}
    done = [
        f"{_what(letter)} {PARKED_AGAIN if _of(letter) in again else SETTLED[decision]}"
        for letter in gone
    ]
    done = done or [WITHOUT_LETTERS.get(decision, "no dead letter was left")]
    return f"{', '.join(done)}; saga {saga['transaction_id']} is {saga['state']}, {_rest(saga)}"


def _rest(saga: Mapping[str, Any]) -> str:
    from multiagents.operations.projection import person_awaited

    waits = person_awaited(saga) or "; ".join(saga["attention"])
    if waits:
        return f"and still waits for an operator: {waits}"
    return "nothing else waits for an operator"


def _of(letter: Letter) -> tuple[str, str]:
    return letter["kind"], letter["step"]


def _named(letter: Letter) -> tuple[str, str, str]:
    return letter["kind"], letter["step"], letter["parked_at"]


def _what(letter: Letter) -> str:
    return f"{'undo of' if letter['kind'] == 'undo' else 'step'} {letter['step']!r}"
