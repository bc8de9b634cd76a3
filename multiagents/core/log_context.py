"""Which step do the log lines of this thread belong to?

While a step is at work its saga, workflow, step and attempt stand among structlog's context
variables, so that every structlog line has them; `StepFilter` gives them to the records of the
standard ``logging``, Celery's own among them.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from structlog.contextvars import STRUCTLOG_KEY_PREFIX


class _Step(NamedTuple):
    saga: str = ""
    workflow: str = ""
    step: str = ""
    attempt: int | str = ""

    @property
    def of_step(self) -> str:
        names = (f" {name}={value}" for name, value in zip(self._fields, self, strict=True))
        return "".join(names) if self.saga else ""


_OUTSIDE = _Step()
_step: ContextVar[_Step] = ContextVar("multiagents_step", default=_OUTSIDE)
"""Apart from structlog's variables, which take longer to read: each line asks for it."""
_variables = tuple(ContextVar[Any](f"{STRUCTLOG_KEY_PREFIX}{name}") for name in _Step._fields)
"""structlog reads each variable of such a name; to set them by it takes ten times as long."""

Bound = tuple[Token[Any], ...]
"""What ends the belonging."""


def bind_step(*, saga: str, workflow: str, step: str, attempt: int) -> Bound:
    """Begin: the lines of this thread belong to that step, until `unbind` is given the reply."""
    found = _Step(saga, workflow, step, attempt)
    values = zip(_variables, found, strict=True)
    return (_step.set(found), *[variable.set(value) for variable, value in values])


def unbind(bound: Bound) -> None:
    """End: the lines belong to what they belonged to before."""
    for token in bound:
        token.var.reset(token)


class StepFilter(logging.Filter):
    """Gives each record ``saga``, ``workflow``, ``step`` and ``attempt``, empty outside a step.

    ``of_step`` has all of them for a format, with a space before; it is empty outside a step.  To
    be added to handlers: a logger's filters do not see what other loggers hand up.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        found = _step.get()
        for name, value in zip(found._fields, found, strict=True):
            record.__dict__.setdefault(name, value)
        record.__dict__.setdefault("of_step", found.of_step)
        return True


def add_step_filter(logger: logging.Logger) -> None:
    """Have all handlers of a logger know the step of each record; once is enough."""
    for handler in logger.handlers:
        if not any(isinstance(each, StepFilter) for each in handler.filters):
            handler.addFilter(StepFilter())
