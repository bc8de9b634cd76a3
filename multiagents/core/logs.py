"""How do the engine's log lines look if the program has not configured structlog?

Like structlog's own, with three differences.  A traceback is plain, without the local variables of
its frames, which may be secret.  Control characters are shown as text.  A line that goes into
another log, such as each line of a Celery worker, has only that log's time.  A program that
configures structlog overrides all of this.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

import structlog

from multiagents.core.texts import shown, shown_line


def tame() -> None:
    """Change structlog's default lines in this way, once; do not change a configuration."""
    processors: Any = structlog.get_config()["processors"]
    if not structlog.is_configured() and plainly not in processors:
        processors.insert(len(processors) - 1, plainly)


def plainly(_: Any, __: str, fields: Any) -> Any:
    """A structlog processor before the console's, which makes the fields readable text."""
    error = _error_of(fields.pop("exc_info", None))
    if _is_logged():
        fields.pop("timestamp", None)
    escaped(_, __, fields)
    if error is not None:
        fields["stack"] = shown("".join(traceback.format_exception(error)).rstrip())
    return fields


def _is_logged() -> bool:
    """Whether stdout is Celery's, which turns each line into a record of the worker's log."""
    return isinstance(getattr(sys.stdout, "logger", None), logging.Logger)


def escaped(_: Any, __: str, fields: Any) -> Any:
    """The fields with each text on one line, except a traceback or stack."""
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
