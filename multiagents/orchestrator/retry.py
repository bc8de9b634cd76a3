"""When is a failed attempt tried again?

Pure: the jitter is drawn from a hash of what is retried, so that the same log always gives the
same decision, and yet no two steps wait in step with each other.
"""

from __future__ import annotations

import zlib

from multiagents.core.policies import MAX_RETRY_AFTER_S, RetryPolicy


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
