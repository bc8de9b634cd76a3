"""How long is a report kept that the store does not take?

What a step returned is done and cannot be done again for nothing, so its process waits with it for
the store's return, however long that takes; unless it is needed elsewhere.  Any other error of the
store (missing rights, a key of another type) may be mended meanwhile: the report is repeated for
`PATIENCE_S`.  Repeating is safe, whatever part of a script was carried out: an entry counts once.
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
"""How long a report is kept by a process that others need, or that is to end; and by any where the
store answers with another error than that it is away or does nothing for now."""

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

    ``is_needed``: whether the process is not to wait longer than `PATIENCE_S`; after that it raises
    the store's error, and the attempt's lease decides.  An error that is no outage is raised then,
    too.  ``kept``, ``given_up``: what is logged.
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
