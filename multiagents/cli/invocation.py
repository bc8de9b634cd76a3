"""How was the command line called, and for which app?

As `multiagents` it speaks of the server that the environment names.  As ``celery -A proj saga`` it
speaks of the sagas of that app, offers no command that brings servers of its own, and names itself
so in all advice.
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
"""Commands that bring servers and workers of their own; they concern no app."""
COPIED = frozenset({"commands", "fix"})
"""What of a JSON answer holds commands to copy."""


@dataclass(slots=True)
class Called:
    """One call of the command line."""

    program: str = PROGRAM
    """What stands before the command."""
    app: Celery | None = None
    """Whose sagas are meant; None: those of the environment."""
    commands: Sequence[str] = ()
    """The commands that this program offers."""
    settings: Settings | None = None
    """Of the engine that the command talks to, once that is known."""

    def __post_init__(self) -> None:
        if self.app is not None:
            self.commands = [name for name in self.commands if name not in OWN_SERVERS]

    def offers(self, command: str) -> bool:
        """Whether a command is one of this program's."""
        return self.app is None or command not in OWN_SERVERS


def program_for(app: str) -> str:
    """What stands before a command for this app, named as after ``celery -A``; empty: not known."""
    return f"celery -A {app} saga" if app else "celery saga"


_now = Called()


def called() -> Called:
    """The present call."""
    return _now


@contextmanager
def calling(call: Called) -> Iterator[Called]:
    """Let this be the present call meanwhile."""
    global _now
    before, _now = _now, call
    try:
        yield call
    finally:
        _now = before


def as_called(text: str) -> str:
    """A text for people, in which commands begin with the program as it was called."""
    if _now.program == PROGRAM:
        return text
    pattern = _commands(tuple(_now.commands))
    return pattern.sub(lambda _: f"{_now.program} ", text)


def copied(value: Any) -> Any:
    """A JSON answer in which commands to copy do; other data is left as it is."""
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
