"""What is a Redis operation before it is sent?

A `Call` is one script invocation as a value, a `Plain` one command; a `Flow` is a generator that
yields them (and effects that are not Redis', such as publishing a message) and is sent their
results.  The same flow is run by the sync edge, the async edge and the simulator: there is one
implementation of each operation, and no edge knows a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Arg = str | int | bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One run of ``lua/<script>.lua``, not yet sent; ``parse`` turns its reply into ``T``."""

    script: str
    keys: tuple[str, ...]
    args: tuple[Arg, ...]
    parse: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Plain(Generic[T]):
    """One Redis command, not yet sent."""

    command: tuple[Arg, ...]
    parse: Callable[[Any], T]
    key: str = ""
    """Whose server is meant, of several, where the command itself names no key."""


Flow = Generator[Any, Any, T]
"""Yields `Call`, `Plain` and effects; returns ``T``."""


def ask(call: Call[T] | Plain[T]) -> Generator[Any, Any, T]:
    """Yield one operation and return its typed result: ``view = yield from ask(load(...))``."""
    reply: T = yield call
    return reply
