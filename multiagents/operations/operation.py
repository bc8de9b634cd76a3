"""Which operations on sagas exist?

`OPERATIONS` is the one table.  The sync face (`multiagents.sagas`), the asyncio face
(`Orchestrator`), the Celery tasks and the command line are made from it.  Each row names a method
of `SagaService`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


class Gives(Enum):
    """The shape of what an operation returns."""

    ID = auto()
    """The saga's id."""
    SAGA = auto()
    """The saga as `get` shows it."""
    ROWS = auto()
    """A list of objects: sagas, entries of a history, things that wait for an operator."""
    LETTERS = auto()
    """A list of dead letters; each has the ``transaction_id`` of its saga."""
    REPORT = auto()
    """An object of its own."""


@dataclass(frozen=True, slots=True)
class Operation:
    """The facts about an operation that every face needs."""

    gives: Gives
    of_one_saga: bool = False
    """Whether its first argument is the id of a saga."""
    changes: bool = False
    """Whether it may change a saga."""


_QUERY = Operation(Gives.SAGA, of_one_saga=True)
_ACTION = Operation(Gives.SAGA, of_one_saga=True, changes=True)

OPERATIONS: Mapping[str, Operation] = {
    "start": Operation(Gives.ID, changes=True),
    "get": _QUERY,
    "list": Operation(Gives.ROWS),
    "history": Operation(Gives.ROWS, of_one_saga=True),
    "explain": Operation(Gives.REPORT, of_one_saga=True),
    "attention": Operation(Gives.ROWS),
    "pause": _ACTION,
    "resume": _ACTION,
    "cancel": _ACTION,
    "rollback": _ACTION,
    "terminate": _ACTION,
    "retry": _ACTION,
    "skip": _ACTION,
    "resolve": _ACTION,
    "remove": Operation(Gives.REPORT, of_one_saga=True, changes=True),
    "dead_letters": Operation(Gives.LETTERS),
    "settle_dead_letters": Operation(Gives.LETTERS, changes=True),
    "reindex_dead_letters": Operation(Gives.REPORT),
}
"""Every operation, by the name that every face gives it."""
