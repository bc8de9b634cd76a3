"""Which step do the log lines of this thread belong to?

While a step is at work its saga, workflow, step and attempt stand among structlog's context
variables, so that every structlog line has them; `StepFilter` gives them to the records of the
standard ``logging``, Celery's own among them.
"""

from __future__ import annotations

from contextvars import Token, copy_context
from typing import Any

from structlog.contextvars import bind_contextvars

from multiagents.core.log_records import StepNames, current

_tokens = copy_context().run(bind_contextvars, **StepNames()._asdict())
_variables = tuple(_tokens[name].var for name in StepNames._fields)
"""structlog's own: a second variable of the same name would not replace what a program has bound.

To set them by structlog's functions takes ten times as long.
"""

Bound = tuple[Token[Any], ...]
"""What ends the belonging."""


def bind_step(*, saga: str, workflow: str, step: str, attempt: int) -> Bound:
    """Begin: the lines of this thread belong to that step, until `unbind` is given the reply."""
    found = StepNames(saga, workflow, step, attempt)
    values = zip(_variables, found, strict=True)
    return (current.set(found), *[variable.set(value) for variable, value in values])


def unbind(bound: Bound) -> None:
    """End: the lines belong to what they belonged to before."""
    for token in bound:
        token.var.reset(token)
