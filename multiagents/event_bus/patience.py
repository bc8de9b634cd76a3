"""How often does a bus repeat a call that a server refuses for now?

redis-py retries after a lost connection.  A server that refuses a call (it is busy with a script,
full, or has become a replica) has done nothing, so the bus repeats the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from multiagents.storage.outages import reason_of
from multiagents.storage.refusals import word_of

T = TypeVar("T")

TRIES = 6
"""With pauses of 0.2, 0.4, 0.8, 1, 1 s: long enough for a restart, then the outage is reported."""
PAUSES = ExponentialBackoff(cap=1.0, base=0.1)


def is_outage(error: Exception) -> bool:
    """Whether a server is away, or refuses all work for now."""
    lost = isinstance(error, RedisConnectionError | RedisTimeoutError | OSError)
    return lost or word_of(error) is not None


def why_of(error: Exception) -> str:
    """The text of such an error for users; a refusal in the server's own words."""
    return str(error) if word_of(error) is not None else reason_of(error)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """The reply; raises the server's refusal after `TRIES` calls."""
    for failures in range(1, TRIES):
        try:
            return await ask()
        except ResponseError as error:
            if word_of(error) is None:
                raise
            await asyncio.sleep(PAUSES.compute(failures))
    return await ask()
