"""What waits for an operator?

A dead letter is a parked step or undo: only an operator moves it.  A saga asks for attention while
it has one, and after other events that an operator should know.  Each shard has an index of both.
The commit that changes the saga writes them.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from multiagents.core.fields import dead_letter
from multiagents.core.ports import Waiting
from multiagents.core.states import Kind, StepState, UndoState
from multiagents.saga.state import Saga, StepRun

SAGAS, LETTERS = 0, 1
"""The indexes, as a `Waiting` names them."""


def parked(step: StepRun) -> Kind | None:
    """Whether a step's run or undo is parked, if any; never both."""
    if step.undo.state is UndoState.PARKED:
        return Kind.UNDO
    return Kind.RUN if step.run.state is StepState.PARKED else None


def dead_letters_of(saga: Saga) -> Iterator[tuple[str, Kind]]:
    """The dead letters of a saga, by step and kind, in definition order."""
    for name, step in saga.steps.items():
        kind = parked(step)
        if kind is not None:
            yield name, kind


def parked_at(saga: Saga, step: str, kind: Kind) -> int:
    """When it was parked, Unix ms."""
    return saga.steps[step].of(kind).ended_at or saga.updated_at


def changes(before: Saga, saga: Saga, changed: Iterable[str]) -> list[Waiting]:
    """The changes of a decision, made over ``before``, to the indexes.

    ``changed``: the steps that it touched.  A letter that one decision retries and parks again is
    entered anew, with its new time.
    """
    found: list[Waiting] = []
    for name in sorted(changed):
        old, new = _letter(before, name), _letter(saga, name)
        if old != new:
            found += [Waiting(LETTERS, old[0], None)] if old else []
            found += [Waiting(LETTERS, *new)] if new else []
    if bool(before.attention) is not bool(saga.attention):
        found.append(Waiting(SAGAS, saga.id, saga.updated_at if saga.attention else None))
    return found


def entries_of(saga: Saga) -> list[Waiting]:
    """All rows that the indexes should have for a saga."""
    letters = (_letter(saga, name) for name in saga.steps)
    found = [Waiting(LETTERS, *letter) for letter in letters if letter]
    return [*found, Waiting(SAGAS, saga.id, saga.updated_at)] if saga.attention else found


def _letter(saga: Saga, name: str) -> tuple[str, int] | None:
    kind = parked(saga.steps[name])
    if kind is None:
        return None
    member = dead_letter(kind, name, saga.workflow, saga.id)
    return member, parked_at(saga, name, kind)
