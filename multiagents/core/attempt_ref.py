"""Which attempt is meant?

Within its saga, an attempt has three coordinates: whether it runs or undoes, its step, and its
number, 1-based.  Entries, commands, messages and claims keep them as separate fields, because that
is their stored form; `OfAttempt.ref` combines them.  No I/O, no clock.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from multiagents.core.states import Kind


class AttemptRef(NamedTuple):
    """One attempt at the run or the undo of a step."""

    kind: Kind
    step: str
    attempt: int

    @property
    def text(self) -> str:
        """The form in stored names: ``run:charge:2``."""
        return f"{self.kind}:{self.step}:{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> AttemptRef:
        """The attempt whose `text` this is.  Raises ValueError for any other text."""
        kind, step, attempt = text.split(":")
        return cls(Kind(kind), step, int(attempt))


class _Flat(Protocol):
    @property
    def kind(self) -> Kind: ...
    @property
    def step(self) -> str: ...
    @property
    def attempt(self) -> int: ...


class OfAttempt:
    """A value with the fields ``kind``, ``step`` and ``attempt``."""

    __slots__ = ()

    @property
    def ref(self: _Flat) -> AttemptRef:
        """The attempt that the value is about."""
        return AttemptRef(self.kind, self.step, self.attempt)
