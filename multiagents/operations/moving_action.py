"""Which operator's action moved a saga to its state?

A second pause or cancel changes nothing: the first one stands, with its operator and reason.
If several are in the log, the log is decided over again to find the one that had an effect.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from multiagents.core.entries import Entry, Requested
from multiagents.core.states import Action, SagaState
from multiagents.engine.saga_reader import blank_saga
from multiagents.saga.decide import fold
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow


def moved_by(saga: Saga) -> Action | None:
    """The kind of action that moved a saga to its state; None: no action did."""
    if saga.terminated:
        return Action.TERMINATE
    if saga.state is SagaState.PAUSED:
        return Action.PAUSE
    if saga.rolled_back:
        return Action.ROLLBACK
    return Action.CANCEL if saga.cancelled else None


def stands(saga: Saga, action: Action) -> bool:
    """Whether a saga is paused or cancelled already, as the action asks."""
    if action is Action.PAUSE:
        return saga.state is SagaState.PAUSED
    cancelled = saga.cancelled or saga.halting == Action.CANCEL.value
    return action is Action.CANCEL and cancelled


def action_of(
    saga: Saga, workflow: Workflow, entries: Sequence[Entry], data: dict[str, str]
) -> Requested | None:
    """The action that moved a saga to its state; None: no action did.

    ``entries``: its log; ``data``: its data hash, which conditions read.
    """
    action = moved_by(saga)
    if action is None and stands(saga, Action.CANCEL):
        action = Action.CANCEL
    asked = [each for each in entries if isinstance(each, Requested) and each.action is action]
    if len(asked) < 2:
        return asked[0] if asked else None
    return _effective(saga.id, workflow, entries, data, action) or asked[-1]


def _effective(
    saga_id: str,
    workflow: Workflow,
    entries: Sequence[Entry],
    data: dict[str, str],
    action: Action | None,
) -> Requested | None:
    """The last of these actions that moved the saga."""
    saga = blank_saga(workflow, saga_id, entries[0].at_ms, data)
    found, decided = None, 0
    for place, entry in enumerate(entries):
        if not (isinstance(entry, Requested) and entry.action is action):
            continue
        before = fold(workflow, saga, entries[decided:place]).saga
        saga, decided = fold(workflow, before, (entry,)).saga, place + 1
        if _is_there(saga, action) and not _is_there(before, action):
            found = entry
    return found


def _is_there(saga: Saga, action: Action | None) -> bool:
    return action is not None and (moved_by(saga) is action or stands(saga, action))
