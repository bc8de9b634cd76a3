"""How does one handler get one event?

An error of the handler or the monitor is logged and returned as a value, so the subscription
continues.  Contexts and results of events are never logged.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from multiagents.core.events import Event
from multiagents.event_bus.bus import Handler, Monitor
from multiagents.event_bus.logger import structured


class Deliverer:
    """Calls handlers with events, reports each stage to the monitor, and logs failures."""

    def __init__(self, *, monitor: Monitor | None = None, logger: Any = None) -> None:
        self._monitor = monitor
        self._given_logger = logger
        self._logger: Any = None

    @property
    def log(self) -> Any:
        """A structlog logger, made on first use: importing structlog takes a tenth of a second."""
        if self._logger is None:
            self._logger = structured(self._given_logger, "multiagents.event_bus")
        return self._logger

    async def track(self, event: Event, stage: str) -> None:
        """Report a stage to the monitor; its errors are only logged."""
        if self._monitor is None:
            return
        try:
            told = self._monitor.track_event_lifecycle(event, stage)
            if inspect.isawaitable(told):
                await told
        except Exception:
            self.log.exception("event monitor failed", stage=stage, **_about(event))

    async def deliver(self, event: Event, handler: Handler) -> Exception | None:
        """Call the handler; return its error, which is already logged, or None."""
        from structlog.contextvars import bound_contextvars  # slow to import, see `log`

        with bound_contextvars(
            transaction_id=event.transaction_id, correlation_id=event.correlation_id
        ):
            await self.track(event, "picked_up")
            await self.track(event, "processing")
            error = await self._call(event, handler)
            await self.track(event, "completed" if error is None else "failed")
        return error

    async def _call(self, event: Event, handler: Handler) -> Exception | None:
        try:
            await _call(handler, event)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the subscription ends; this is no error of the handler
            return self._failed(event, handler, RuntimeError(f"handler was cancelled: {error!r}"))
        except Exception as error:  # noqa: BLE001 - logged in _failed and acted on by the caller
            return self._failed(event, handler, error)
        return None

    def _failed(self, event: Event, handler: Handler, error: Exception) -> Exception:
        name = getattr(handler, "__qualname__", type(handler).__qualname__)
        self.log.error("event handler failed", handler=name, exc_info=error, **_about(event))
        return error


async def _call(handler: Handler, event: Event) -> None:
    """Await an async handler; run a plain one in a thread, so that it cannot stall the loop."""
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - its kind is asked for, not whether it is there
    ):
        await handler(event)
        return
    answer = await asyncio.to_thread(handler, event)
    if inspect.isawaitable(answer):
        await answer


def _about(event: Event) -> dict[str, str]:
    return {
        "event_type": event.event_type,
        "event_id": event.event_id,
        "transaction_id": event.transaction_id,
        "correlation_id": event.correlation_id,
    }
