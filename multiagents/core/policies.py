"""How often, and after which delays, may a step be retried?

Values only; `saga.retry` turns a policy into a delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from multiagents.core.error_names import name_of

MAX_RETRY_AFTER_S = 3600.0
"""The longest ``retry_after``: an answer such as "in a week" must not stop a saga unnoticed."""


def _names(given: object) -> object:
    """Classes as their names, and a single one as a list; pydantic refuses any other value."""
    listed = [given] if isinstance(given, str | type) else given
    if not isinstance(listed, list | tuple | set | frozenset):
        return given
    return tuple(name_of(each) if isinstance(each, type) else each for each in listed)


ERROR_KEYS = ("on", "not_on")
"""The fields of a policy that name errors."""
ErrorNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_names)]


class RetryPolicy(BaseModel):
    """Decides whether a failed attempt is retried, and when.  All times in seconds.

    The delay before attempt n+1 is drawn from 0 to ``min(cap_s, backoff_s * factor ** (n - 1))``
    (full jitter, after Brooker's "Exponential Backoff and Jitter"); ``jitter=False`` takes the
    upper end.

    ``on`` names classes of errors that are retried, ``not_on`` classes that are not; both override
    the defaults (rules 2 and 5).  A class includes its subclasses, and the nearer class counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 3
    backoff_s: Annotated[float, Field(ge=0, le=86_400)] = 1.0
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    cap_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    jitter: bool = True
    on: ErrorNames = ()
    not_on: ErrorNames = ()

    @model_validator(mode="after")
    def _decided(self) -> Self:
        both = [name for name in self.on if name in self.not_on]
        if both:
            raise ValueError(f"{both[0]!r} is in both on and not_on: keep one")
        return self

    def says(self, names: Sequence[str]) -> bool | None:
        """Whether to retry an error with these classes, nearest first.

        None: the policy names none of them.
        """
        for name in names:
            if name in self.on:
                return True
            if name in self.not_on:
                return False
        return None

    def to_row(self) -> list[Any]:
        """A compact JSON-safe form for the log; `from_row` reads it."""
        row = [self.max_attempts, self.backoff_s, self.factor, self.cap_s, int(self.jitter)]
        return [*row, self.on, self.not_on] if self.on or self.not_on else row

    @classmethod
    def from_row(cls, row: list[Any]) -> RetryPolicy:
        """The policy that `to_row` wrote, without another validation."""
        on, not_on = row[5:] or ((), ())
        return cls.model_construct(
            max_attempts=row[0],
            backoff_s=row[1],
            factor=row[2],
            cap_s=row[3],
            jitter=bool(row[4]),
            on=tuple(on),
            not_on=tuple(not_on),
        )


DEFAULT_RETRY = RetryPolicy()
"""3 attempts, 1 s, factor 2, cap 60 s, full jitter."""

UNDO_RETRY = RetryPolicy(max_attempts=10, cap_s=300.0)
"""A compensation gets more attempts than the step that it undoes (rule 5).

`UNDO_TRIES_OF_PROGRAMMERS` is the limit for a mistake in its code."""
