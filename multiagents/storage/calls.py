"""What is a Redis operation before it is sent?

A `Call` is one run of a script as a value, a `Plain` one command: ``view = await load(...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from multiagents.core.effects import Effect

T = TypeVar("T")
Arg = str | int | bytes


@dataclass(frozen=True, slots=True)
class Call(Effect[T]):
    """One run of ``lua/<script>.lua``, not yet sent; ``parse`` turns its reply into ``T``."""

    script: str
    keys: tuple[str, ...]
    args: tuple[Arg, ...]
    parse: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Plain(Effect[T]):
    """One Redis command, not yet sent."""

    command: tuple[Arg, ...]
    parse: Callable[[Any], T]
    key: str = ""
    """A key on the server that is meant, if the command names none."""
