"""Is a failed attempt tried again, and when?

The policy's answer for an error comes first, then the default for its class (rules 2 and 5).

Pure: the jitter comes from a hash of the attempt.  So the same log always gives the same decision,
yet two steps do not retry at the same time.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from multiagents.core.error_names import (
    UNDO_TRIES_OF_PROGRAMMERS,
    is_programmers_own,
    is_repeated,
)
from multiagents.core.policies import MAX_RETRY_AFTER_S, RetryPolicy
from multiagents.core.states import Kind


def most_tries(
    policy: RetryPolicy, kind: Kind, classes: Sequence[str], *, retryable: bool = True
) -> int:
    """How many failures in a row end the work, if this is the last of them; 0: it alone does.

    ``classes``: the names of the error's classes, nearest first; without any ``retryable`` says
    what is usual.
    """
    said = policy.says(classes)
    if said is not None:
        return policy.max_attempts if said else 0
    if not (is_repeated(classes, kind) if classes else retryable):
        return 0
    if kind is Kind.UNDO and is_programmers_own(classes):
        return min(policy.max_attempts, UNDO_TRIES_OF_PROGRAMMERS)
    return policy.max_attempts


def delay_ms(
    policy: RetryPolicy, tries: int, *, seed: str, retry_after_ms: int | None = None
) -> int:
    """Milliseconds to wait after the ``tries``-th failure in a row (1-based)."""
    if retry_after_ms is not None:
        return max(0, min(retry_after_ms, round(MAX_RETRY_AFTER_S * 1000)))
    # The exponent is bounded: a float overflows at some 1,000 doublings, the cap rules long before.
    ceiling = min(policy.cap_s, policy.backoff_s * policy.factor ** min(tries - 1, 64))
    share = _unit(seed) if policy.jitter else 1.0
    return round(ceiling * share * 1000)


def _unit(seed: str) -> float:
    """A number from 0 to 1 that looks random and is always the same for this seed."""
    return zlib.crc32(seed.encode()) / 0xFFFF_FFFF
