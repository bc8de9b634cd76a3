"""Which operator's action moved a saga to its state?

A second pause or cancel changes nothing: the first one stands, with its operator and reason.
If several are in the log, the log is decided over again to find the one that had an effect.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from multiagents.core.entries import Asked, Entry
from multiagents.core.states import Command, SagaState
from multiagents.engine.saga_reader import blank_saga
from multiagents.saga.decide import fold
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow


def moved_by(saga: Saga) -> Command | None:
    """The kind of action that moved a saga to its state; None: no action did."""
    if saga.terminated:
        return Command.TERMINATE
    if saga.state is SagaState.PAUSED:
        return Command.PAUSE
    if saga.rolled_back:
        return Command.ROLLBACK
    return Command.CANCEL if saga.cancelled else None


def stands(saga: Saga, command: Command) -> bool:
    """Whether a saga is paused or cancelled already, as the action asks."""
    if command is Command.PAUSE:
        return saga.state is SagaState.PAUSED
    cancelled = saga.cancelled or saga.halting == Command.CANCEL.value
    return command is Command.CANCEL and cancelled


def action_of(
    saga: Saga, workflow: Workflow, entries: Sequence[Entry], data: dict[str, str]
) -> Asked | None:
    """The action that moved a saga to its state; None: no action did.

    ``entries``: its log; ``data``: its data hash, which conditions read.
    """
    command = moved_by(saga)
    if command is None and stands(saga, Command.CANCEL):
        command = Command.CANCEL
    asked = [each for each in entries if isinstance(each, Asked) and each.command is command]
    if len(asked) < 2:
        return asked[0] if asked else None
    return _effective(saga.id, workflow, entries, data, command) or asked[-1]


def _effective(
    saga_id: str,
    workflow: Workflow,
    entries: Sequence[Entry],
    data: dict[str, str],
    command: Command | None,
) -> Asked | None:
    """The last of these actions that moved the saga."""
    saga = blank_saga(workflow, saga_id, entries[0].at_ms, data)
    found, decided = None, 0
    for place, entry in enumerate(entries):
        if not (isinstance(entry, Asked) and entry.command is command):
            continue
        before = fold(workflow, saga, entries[decided:place]).saga
        saga, decided = fold(workflow, before, (entry,)).saga, place + 1
        if _is_there(saga, command) and not _is_there(before, command):
            found = entry
    return found


def _is_there(saga: Saga, command: Command | None) -> bool:
    return command is not None and (moved_by(saga) is command or stands(saga, command))
