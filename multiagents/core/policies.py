"""How often, how long: what does a step allow itself?

Values only; `orchestrator.retry` turns a policy into a delay.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_RETRY_AFTER_S = 3600.0
"""A ``retry_after`` is honoured up to here: a provider that answers "in a week" must not park a
saga unseen."""


class RetryPolicy(BaseModel):
    """When a failed attempt is tried again.  All times in seconds.

    The delay before attempt n+1 is drawn from 0 to ``min(cap_s, backoff_s * factor ** (n - 1))``
    (full jitter, after Brooker's "Exponential Backoff and Jitter"); ``jitter=False`` takes the
    upper end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 3
    backoff_s: Annotated[float, Field(ge=0, le=86_400)] = 1.0
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    cap_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    jitter: bool = True

    def to_row(self) -> list[Any]:
        """A compact JSON-safe form for the log; `from_row` takes it back."""
        return [self.max_attempts, self.backoff_s, self.factor, self.cap_s, int(self.jitter)]

    @classmethod
    def from_row(cls, row: list[Any]) -> RetryPolicy:
        """The policy that `to_row` wrote; trusted, so not validated again."""
        return cls.model_construct(
            max_attempts=row[0], backoff_s=row[1], factor=row[2], cap_s=row[3], jitter=bool(row[4])
        )


DEFAULT_RETRY = RetryPolicy()
"""3 attempts, 1 s, factor 2, cap 60 s, full jitter."""

UNDO_RETRY = RetryPolicy(max_attempts=10, cap_s=300.0)
"""A compensation is given more patience than the work it undoes (rule 5)."""
