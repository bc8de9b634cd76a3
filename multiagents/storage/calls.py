"""What is a Redis operation before it is sent?

A `Call` is one script invocation as a value; a `Flow` is a generator that yields calls (and the
messages to publish) and is sent their results.  The same flow is run by the sync edge, the async
edge and the simulator, so there is one implementation of each operation and none of the edges
knows a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One invocation of ``lua/<script>.lua``, not yet sent; ``parse`` turns its reply into ``T``."""

    script: str
    keys: tuple[str, ...]
    args: tuple[str | int | bytes, ...]
    parse: Callable[[Any], T]


Flow = Generator[Any, Any, T]
"""Yields `Call` and publishing effects, returns ``T``."""


def ask(call: Call[T]) -> Generator[Call[T], T, T]:
    """Yield one call and return its typed result: ``loaded = yield from ask(load(...))``."""
    reply = yield call
    return reply
