"""Which logger stands for none, or for one of the standard library?

A library does not decide what is printed.  So the default is the standard library's logger of that
name, which the program's own logging set-up (Celery's, or `monitoring.logs`) controls.
"""

from __future__ import annotations

import logging
from typing import Any

from multiagents.core.texts import shown_line


def structured(logger: Any, name: str) -> Any:
    """``logger`` as a structlog logger; None stands for the standard logger ``name``."""
    if logger is not None and not isinstance(logger, logging.Logger | logging.LoggerAdapter):
        return logger
    import structlog  # takes a tenth of a second, so not at the import of the bus

    return structlog.wrap_logger(
        logger or logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _to_text],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _to_text(_: Any, __: str, fields: Any) -> tuple[tuple[str], dict[str, Any]]:
    """The standard library's arguments for one line of text: the event, then its fields."""
    exc_info = fields.pop("exc_info", None)
    words = [str(fields.pop("event")), *(f"{name}={value}" for name, value in fields.items())]
    return (shown_line(" ".join(words)),), {"exc_info": exc_info}
