"""How do the engine's log lines look where nobody has configured structlog?

As structlog's own, with three differences: a traceback is plain, without the local variables of its
frames, which may hold secrets; control characters are shown as text; and a line that goes into a
log, as all do that a Celery worker prints, has that log's time alone.  A program that configures
structlog decides all of it by itself.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

import structlog

from multiagents.core.texts import shown, shown_line


def tame() -> None:
    """Make structlog's default lines so, once; a configuration is left alone."""
    processors: Any = structlog.get_config()["processors"]
    if not structlog.is_configured() and plainly not in processors:
        processors.insert(len(processors) - 1, plainly)


def plainly(_: Any, __: str, fields: Any) -> Any:
    """A structlog processor before the console's: what is to be read, as text."""
    error = _error_of(fields.pop("exc_info", None))
    if _is_logged():
        fields.pop("timestamp", None)
    escaped(_, __, fields)
    if error is not None:
        fields["stack"] = shown("".join(traceback.format_exception(error)).rstrip())
    return fields


def _is_logged() -> bool:
    """Whether stdout is Celery's, which makes a record of a worker's log of each line."""
    return isinstance(getattr(sys.stdout, "logger", None), logging.Logger)


def escaped(_: Any, __: str, fields: Any) -> Any:
    """Texts on one line each, but for a traceback or stack that is a text already."""
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = (shown if name in ("exception", "stack") else shown_line)(value)
    return fields


def _error_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        error: BaseException | None = exc_info[1]
        return error
    return sys.exc_info()[1] if exc_info else None
