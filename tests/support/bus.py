"""Which events do the tests of the event buses publish, and who receives them?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from multiagents.core.events import Event, StatusEvent
from multiagents.core.states import SagaState

SOON_S = 0.05
"""The redelivery interval in these tests."""


def status(number: int = 0) -> StatusEvent:
    return StatusEvent(transaction_id=f"t{number}", state=SagaState.RUNNING)


async def until(condition: Callable[[], Any], deadline_s: float = 10.0) -> None:
    """Wait for a condition; TimeoutError after the deadline."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - any condition, not only events
            await asyncio.sleep(0.005)


class Inbox:
    """A handler that keeps its events, and refuses the first ``refuse`` ones."""

    def __init__(self, refuse: int = 0) -> None:
        self.events: list[Event] = []
        self.calls = 0
        self._refuse = refuse

    async def __call__(self, event: Event) -> None:
        self.calls += 1
        if self.calls <= self._refuse:
            raise ConnectionRefusedError("not now")
        self.events.append(event)

    @property
    def ids(self) -> list[str]:
        return [event.transaction_id for event in self.events]

    async def has(self, count: int) -> None:
        await until(lambda: len(self.events) >= count)
