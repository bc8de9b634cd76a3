"""How does a record of the standard ``logging`` name its step?

This module does not import structlog, which takes a tenth of a second; `core.log_context` sets the
names.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import NamedTuple


class StepNames(NamedTuple):
    """The fields that a record gets; empty outside a step."""

    saga: str = ""
    workflow: str = ""
    step: str = ""
    attempt: int | str = ""

    @property
    def of_step(self) -> str:
        """All fields for the end of a line, with a space before."""
        names = (f" {name}={value}" for name, value in zip(self._fields, self, strict=True))
        return "".join(names) if self.saga else ""


_OUTSIDE = StepNames()
current: ContextVar[StepNames] = ContextVar("multiagents_step", default=_OUTSIDE)
"""Separate from structlog's variables, which are slower to read, because each line reads it."""


class StepFilter(logging.Filter):
    """Adds ``saga``, ``workflow``, ``step`` and ``attempt`` to each record, empty outside a step.

    ``of_step`` has all of them for a format, with a space before; it is empty outside a step.  Add
    the filter to handlers: a logger's own filters do not see records from its child loggers.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        found = current.get()
        for name, value in zip(found._fields, found, strict=True):
            record.__dict__.setdefault(name, value)
        record.__dict__.setdefault("of_step", found.of_step)
        return True


def add_step_filter(logger: logging.Logger) -> None:
    """Add a `StepFilter` to all handlers of a logger, unless they have one."""
    for handler in logger.handlers:
        if not any(isinstance(each, StepFilter) for each in handler.filters):
            handler.addFilter(StepFilter())
