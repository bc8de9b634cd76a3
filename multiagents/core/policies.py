"""How often, how long: what does a step allow itself?

Values only; `saga.retry` turns a policy into a delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from multiagents.core.error_names import name_of

MAX_RETRY_AFTER_S = 3600.0
"""A ``retry_after`` is honoured up to here: a provider that answers "in a week" must not park a
saga unseen."""


def _names(given: object) -> object:
    """Classes as their names, and one alone as a list of one; what is neither, pydantic refuses."""
    listed = [given] if isinstance(given, str | type) else given
    if not isinstance(listed, list | tuple | set | frozenset):
        return given
    return tuple(name_of(each) if isinstance(each, type) else each for each in listed)


ERROR_KEYS = ("on", "not_on")
"""The fields of a policy that name errors."""
ErrorNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_names)]


class RetryPolicy(BaseModel):
    """When a failed attempt is tried again.  All times in seconds.

    The delay before attempt n+1 is drawn from 0 to ``min(cap_s, backoff_s * factor ** (n - 1))``
    (full jitter, after Brooker's "Exponential Backoff and Jitter"); ``jitter=False`` takes the
    upper end.

    ``on`` and ``not_on`` name classes of errors that are tried again, and that are not, whatever
    is usual (rules 2 and 5); a class stands for its subclasses, and of two the nearer one counts.
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
            raise ValueError(f"{both[0]!r} stands in both on and not_on: keep one")
        return self

    def says(self, names: Sequence[str]) -> bool | None:
        """Whether an error is to be tried again, of which these are the classes, nearest first.

        None: it is not named.
        """
        for name in names:
            if name in self.on:
                return True
            if name in self.not_on:
                return False
        return None

    def to_row(self) -> list[Any]:
        """A compact JSON-safe form for the log; `from_row` takes it back."""
        row = [self.max_attempts, self.backoff_s, self.factor, self.cap_s, int(self.jitter)]
        return [*row, self.on, self.not_on] if self.on or self.not_on else row

    @classmethod
    def from_row(cls, row: list[Any]) -> RetryPolicy:
        """The policy that `to_row` wrote; trusted, so not validated again."""
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
"""A compensation is given more patience than the work it undoes (rule 5).

`UNDO_TRIES_OF_PROGRAMMERS` is for a mistake in its code."""
