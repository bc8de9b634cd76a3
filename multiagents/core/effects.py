"""Which effects does a flow await from the edge that runs it?

A flow is a coroutine that awaits effects: a Redis operation, a message to publish.  An effect is a
value.  The edge carries it out and sends the reply into the flow.  So one flow runs on the sync
edge, on the async edge and in the simulator.  A flow needs no event loop.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Effect(Generic[T_co]):
    """``reply = await effect``: the edge carries it out, and ``reply`` is a ``T``."""

    __slots__ = ()

    def __await__(self) -> Generator[Effect[T_co], Any, T_co]:
        reply: T_co = yield self
        return reply


Flow = Coroutine[Effect[Any], Any, T]
"""A coroutine that awaits effects and returns a ``T``: an ``async def`` of the engine."""
