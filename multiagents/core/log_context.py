"""Which step do the log lines of this thread belong to?

While a step runs, its saga, workflow, step and attempt are structlog context variables, so that
every structlog line has them.  `StepFilter` adds them to the records of the standard ``logging``,
including Celery's.
"""

from __future__ import annotations

from contextvars import Token, copy_context
from typing import Any

from structlog.contextvars import bind_contextvars

from multiagents.core.log_records import StepNames, current

_tokens = copy_context().run(bind_contextvars, **StepNames()._asdict())
_variables = tuple(_tokens[name].var for name in StepNames._fields)
"""structlog's own variables: another variable of the same name would not replace a program's value.

structlog's functions take ten times as long to set them.
"""

Bound = tuple[Token[Any], ...]
"""The tokens for `unbind`."""


def bind_step(*, saga: str, workflow: str, step: str, attempt: int) -> Bound:
    """Assign the log lines of this thread to that step, until `unbind` receives the reply."""
    found = StepNames(saga, workflow, step, attempt)
    values = zip(_variables, found, strict=True)
    return (current.set(found), *[variable.set(value) for variable, value in values])


def unbind(bound: Bound) -> None:
    """Restore the earlier assignment."""
    for token in bound:
        token.var.reset(token)
