"""Which logger is used where the caller gave none, or one of the standard library?

A library prints nothing by itself: the default is the standard library's logger of that name, so
that the program's own logging set-up (Celery's, or `monitoring.logs`) decides what is shown.
"""

from __future__ import annotations

import logging
from typing import Any

from multiagents.core.texts import shown_line


def structured(logger: Any, name: str) -> Any:
    """``logger`` as a structlog logger; None stands for the standard logger ``name``."""
    if logger is not None and not isinstance(logger, logging.Logger | logging.LoggerAdapter):
        return logger
    import structlog  # a tenth of a second: not for everybody who imports the bus

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
