"""Which step do the log lines of this thread belong to?

While a step is at work its saga, workflow, step and attempt stand among structlog's context
variables, so that every structlog line has them; `StepFilter` gives them to the records of the
standard ``logging``, Celery's own among them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from structlog.contextvars import bind_contextvars, reset_contextvars

Names = Mapping[str, Any]
"""What the record of a line has."""
_OUTSIDE: Names = {"saga": "", "workflow": "", "step": "", "attempt": "", "of_step": ""}
_names: ContextVar[Names] = ContextVar("multiagents_step", default=_OUTSIDE)
"""Apart from structlog's variables, which take longer to read: each line asks for it."""


class Bound(NamedTuple):
    """What ends the belonging."""

    variables: Mapping[str, Token[Any]]
    names: Token[Names]


def bind_step(*, saga: str, workflow: str, step: str, attempt: int) -> Bound:
    """Begin: the lines of this thread belong to that step, until `unbind` is given the reply."""
    found: dict[str, Any] = {"saga": saga, "workflow": workflow, "step": step, "attempt": attempt}
    of_step = f" saga={saga} workflow={workflow} step={step} attempt={attempt}"
    return Bound(bind_contextvars(**found), _names.set({**found, "of_step": of_step}))


def unbind(bound: Bound) -> None:
    """End: the lines belong to what they belonged to before."""
    reset_contextvars(**bound.variables)
    _names.reset(bound.names)


class StepFilter(logging.Filter):
    """Gives each record ``saga``, ``workflow``, ``step`` and ``attempt``, empty outside a step.

    ``of_step`` has all of them for a format, with a space before; it is empty outside a step.  To
    be added to handlers: a logger's filters do not see what other loggers hand up.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        for name, value in _names.get().items():
            record.__dict__.setdefault(name, value)
        return True


def add_step_filter(logger: logging.Logger) -> None:
    """Have all handlers of a logger know the step of each record; once is enough."""
    for handler in logger.handlers:
        if not any(isinstance(each, StepFilter) for each in handler.filters):
            handler.addFilter(StepFilter())
