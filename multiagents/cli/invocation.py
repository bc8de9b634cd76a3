"""How was the command line called, and for which app?

`multiagents` works on the server that the environment names.  ``celery -A proj saga`` works on the
sagas of that app, and has no command that starts its own servers.  All advice begins with the words
of the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    from multiagents.core.settings import Settings

PROGRAM = "multiagents"
OWN_SERVERS = ("dev", "demo", "bench", "chaos")
"""Commands that start their own servers and workers; they concern no app."""
COPIED = frozenset({"commands", "fix"})
"""The fields of a JSON answer that hold commands to copy."""


@dataclass(slots=True)
class Called:
    """One call of the command line."""

    program: str = PROGRAM
    """The words before the command."""
    app: Celery | None = None
    """The app with the sagas; None: the sagas of the environment."""
    commands: Sequence[str] = ()
    """The commands that this program offers."""
    settings: Settings | None = None
    """The settings of the command's engine, when they are known."""

    def __post_init__(self) -> None:
        if self.app is not None:
            self.commands = [name for name in self.commands if name not in OWN_SERVERS]

    def offers(self, command: str) -> bool:
        """Whether a command is one of this program's."""
        return self.app is None or command not in OWN_SERVERS


def program_for(app: str) -> str:
    """The words before a command for this app, named as after ``celery -A``; empty: unknown."""
    return f"celery -A {app} saga" if app else "celery saga"


_now = Called()


def called() -> Called:
    """The present call."""
    return _now


@contextmanager
def calling(call: Called) -> Iterator[Called]:
    """Make this the present call within the block."""
    global _now
    before, _now = _now, call
    try:
        yield call
    finally:
        _now = before


def as_called(text: str) -> str:
    """A text whose commands begin with the program as it was called."""
    if _now.program == PROGRAM:
        return text
    pattern = _commands(tuple(_now.commands))
    return pattern.sub(lambda _: f"{_now.program} ", text)


def copied(value: Any) -> Any:
    """A JSON answer whose commands do so; other data stays unchanged."""
    if _now.program == PROGRAM or not isinstance(value, dict | list):
        return value
    if isinstance(value, list):
        return [copied(each) for each in value]
    return {
        name: _renamed(each) if name in COPIED else copied(each) for name, each in value.items()
    }


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(each) for each in value]
    return as_called(value) if isinstance(value, str) else value


@cache
def _commands(names: tuple[str, ...]) -> re.Pattern[str]:
    known = "|".join(map(re.escape, names))
    return re.compile(rf"\b{PROGRAM} (?=(?:{known})(?![\w-]))")
