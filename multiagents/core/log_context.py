"""Which step do the log lines of this thread belong to?

While a step is at work its saga, workflow, step and attempt stand among structlog's context
variables, so that every structlog line has them; `StepFilter` gives them to the records of the
standard ``logging``, Celery's own among them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import Token
from typing import Any

from structlog.contextvars import bind_contextvars, get_contextvars, reset_contextvars

FIELDS = ("saga", "workflow", "step", "attempt")
"""What a line of a step has; structlog's names and those of a record's attributes."""

Bound = Mapping[str, Token[Any]]


def bind_step(*, saga: str, workflow: str, step: str, attempt: int) -> Bound:
    """Begin: the lines of this thread belong to that step, until `unbind` is given the reply."""
    return bind_contextvars(saga=saga, workflow=workflow, step=step, attempt=attempt)


def unbind(bound: Bound) -> None:
    """End: the lines belong to what they belonged to before."""
    reset_contextvars(**bound)


class StepFilter(logging.Filter):
    """Gives each record ``saga``, ``workflow``, ``step`` and ``attempt``, empty outside a step.

    ``of_step`` has all of them for a format, with a space before; it is empty outside a step.  To
    be added to handlers: a logger's filters do not see what other loggers hand up.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        bound = get_contextvars()
        found = {name: bound.get(name, "") for name in FIELDS}
        of_step = "".join(f" {name}={value}" for name, value in found.items() if value != "")
        for name, value in {**found, "of_step": of_step if found["saga"] else ""}.items():
            record.__dict__.setdefault(name, value)
        return True


def add_step_filter(logger: logging.Logger) -> None:
    """Have all handlers of a logger know the step of each record; once is enough."""
    for handler in logger.handlers:
        if not any(isinstance(each, StepFilter) for each in handler.filters):
            handler.addFilter(StepFilter())
