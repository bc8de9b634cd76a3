"""What does a record of the standard ``logging`` say of the step that it belongs to?

Imports no structlog, which takes a tenth of a second; `core.log_context` sets the names.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import NamedTuple


class StepNames(NamedTuple):
    """What a record is given; empty outside a step."""

    saga: str = ""
    workflow: str = ""
    step: str = ""
    attempt: int | str = ""

    @property
    def of_step(self) -> str:
        """All of them for the end of a line, with a space before."""
        names = (f" {name}={value}" for name, value in zip(self._fields, self, strict=True))
        return "".join(names) if self.saga else ""


_OUTSIDE = StepNames()
current: ContextVar[StepNames] = ContextVar("multiagents_step", default=_OUTSIDE)
"""Apart from structlog's variables, which take longer to read: each line asks for it."""


class StepFilter(logging.Filter):
    """Gives each record ``saga``, ``workflow``, ``step`` and ``attempt``, empty outside a step.

    ``of_step`` has all of them for a format, with a space before; it is empty outside a step.  To
    be added to handlers: a logger's filters do not see what other loggers hand up.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        found = current.get()
        for name, value in zip(found._fields, found, strict=True):
            record.__dict__.setdefault(name, value)
        record.__dict__.setdefault("of_step", found.of_step)
        return True


def add_step_filter(logger: logging.Logger) -> None:
    """Have all handlers of a logger know the step of each record; once is enough."""
    for handler in logger.handlers:
        if not any(isinstance(each, StepFilter) for each in handler.filters):
            handler.addFilter(StepFilter())
