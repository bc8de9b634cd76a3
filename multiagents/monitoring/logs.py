"""How does a log record look, and where does it go?

Each process has one set-up, on the standard logger ``multiagents``.  Records of structlog and of
plain ``logging.getLogger("multiagents....")`` pass the same processors.  So every line has its time
(UTC), level, logger and, inside a saga, ``transaction_id`` and ``correlation_id``; secrets are
hidden last.  The root logger and structlog's own configuration are left alone.  A second set-up
replaces the handlers of the first.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Hashable
from typing import IO, Any

import structlog
from structlog.contextvars import bound_contextvars as bound_ids
from structlog.typing import Processor

from multiagents.core.logs import escaped
from multiagents.monitoring.config_models import LoggingConfig
from multiagents.monitoring.redaction import redact
from multiagents.monitoring.rotation import SharedRotatingFileHandler

__all__ = ["bound_ids", "close_logs", "open_logs"]

ROOT = "multiagents"

_PREPARE: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
_FINISH: list[Processor] = [
    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
    structlog.processors.format_exc_info,
    redact,
]


class _Setup:
    """What `open_logs` has installed in this process."""

    lock = threading.Lock()
    config: Hashable = None
    handlers: tuple[logging.Handler, ...] = ()


def open_logs(config: LoggingConfig) -> structlog.stdlib.BoundLogger:
    """A logger that writes as configured; the files appear with the first record."""
    with _Setup.lock:
        if config != _Setup.config:
            _install(_handlers(config), config.level)
            _Setup.config = config
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(ROOT),
        processors=[
            structlog.stdlib.filter_by_level,
            *_PREPARE,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def close_logs() -> None:
    """Undo `open_logs`: records of this package go to the root logger again."""
    with _Setup.lock:
        _install((), logging.NOTSET)
        _Setup.config = None


def _install(handlers: tuple[logging.Handler, ...], level: int | str) -> None:
    root = logging.getLogger(ROOT)
    for handler in _Setup.handlers:
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    root.propagate = not handlers  # else a worker's root handler would print each line again
    _Setup.handlers = handlers


def _handlers(config: LoggingConfig) -> tuple[logging.Handler, ...]:
    made: list[logging.Handler] = []
    if config.default_logger in {"file", "composite"}:
        file = SharedRotatingFileHandler(
            config.file_path, max_bytes=config.max_bytes, backup_count=config.backup_count
        )
        file.setFormatter(_formatter(structlog.processors.JSONRenderer(ensure_ascii=False)))
        made.append(file)
    if config.default_logger in {"console", "composite"}:
        console = _StderrHandler()
        console.setFormatter(_formatter(escaped, _for_people()))
        made.append(console)
    return tuple(made)


def _formatter(*renderers: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_PREPARE, structlog.stdlib.ExtraAdder()],
        processors=[*_FINISH, *renderers],
    )


def _for_people() -> Processor:
    """Aligned text with plain tracebacks, because the pretty ones print local variables."""
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to the present ``sys.stderr``; stdout belongs to the program."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:
        return sys.stderr
