"""How often was a worker called, how long did it take, how often did it fail?

Exact counts of this process, in memory.  The log goes through structlog into the standard logger
``multiagents.worker``, so the program's logging configuration decides which lines are shown.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import structlog

LOGGER = "multiagents.worker"


@dataclass(slots=True)
class Performance:
    """The calls of one function in this process; times in seconds."""

    calls: int = 0
    """The number of calls that have ended."""
    failures: int = 0
    """The number of calls that raised."""
    total_s: float = 0.0
    max_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def mean_s(self) -> float:
        """The mean duration; 0 before the first call has ended."""
        return self.total_s / self.calls if self.calls else 0.0

    def add(self, duration_s: float, *, failed: bool) -> None:
        """Count one call that has ended."""
        with self._lock:
            self.calls += 1
            self.failures += failed
            self.total_s += duration_s
            self.max_s = max(self.max_s, duration_s)


def monitored(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with counts of its calls in its attribute ``performance``."""
    performance = Performance()
    name = getattr(function, "__qualname__", repr(function))

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def watched(*args: Any, **kwargs: Any) -> Any:
            with _watch(performance, name):
                return await function(*args, **kwargs)
    else:

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with _watch(performance, name):
                return function(*args, **kwargs)

    watched.performance = performance  # type: ignore[attr-defined]  # functions take attributes
    return watched


@contextmanager
def _watch(performance: Performance, name: str) -> Iterator[None]:
    log = _log()
    log.debug("worker started", worker=name)
    begun = time.perf_counter()
    try:
        yield
    except BaseException as error:
        duration_s = time.perf_counter() - begun
        performance.add(duration_s, failed=True)
        # Only the type: a message may contain a secret.
        log.info(
            "worker failed",
            worker=name,
            duration_s=round(duration_s, 6),
            error=type(error).__name__,
        )
        raise
    duration_s = time.perf_counter() - begun
    performance.add(duration_s, failed=False)
    log.info("worker finished", worker=name, duration_s=round(duration_s, 6))


@functools.cache
def _log() -> structlog.stdlib.BoundLogger:
    logger = structlog.wrap_logger(
        logging.getLogger(LOGGER),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return cast(structlog.stdlib.BoundLogger, logger)
