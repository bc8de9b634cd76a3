"""How long does a process keep a report that the store does not take?

The step's effect has happened and must not happen twice for nothing.  So its process waits for the
store without limit, unless other sagas need the process.  Another error of the store (missing
rights, a key of another type) may be fixed meanwhile: the report is repeated for `PATIENCE_S`.
Repeating is safe, even if a script ran in part: an entry counts once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import TypeVar

import structlog

from multiagents.storage.client import UNREACHABLE, Edge, StoreError
from multiagents.storage.routing import told

T = TypeVar("T")

PATIENCE_S = 120.0
"""The time limit of a report in a process that other sagas need, or that is stopping.  In any
process it holds for an error that is no outage."""

log = structlog.get_logger(__name__)


KEPT = "a report is kept until it can be stored"
GIVEN_UP = "a report is given up, the step's lease will end"


def persist(
    report: Callable[[], T],
    *,
    edge: Edge,
    is_needed: Callable[[], bool],
    kept: str = KEPT,
    given_up: str = GIVEN_UP,
) -> T:
    """Repeat a report until the store has it.

    ``is_needed``: whether the process may wait `PATIENCE_S` at most.  After that it raises the
    store's error, and the attempt's lease decides.  An error that is no outage is raised then,
    too.  ``kept``, ``given_up``: the log lines.
    """
    began = time.monotonic()
    for delay in chain((0.1, 0.2, 0.5, 1.0), repeat(2.0)):
        try:
            return report()
        except StoreError as error:
            passes = isinstance(error, UNREACHABLE)
            why = told(edge, error) if passes else f"{type(error).__name__}: {error}"
            if (is_needed() or not passes) and time.monotonic() - began >= PATIENCE_S:
                log.error(given_up, why=why)
                raise
            log.warning(kept, why=why)
            time.sleep(delay)
    raise AssertionError("unreachable: the delays have no end")
