"""How long does a bus ask a server that does nothing for now?

A lost connection is redis-py's to try again.  A server that answers and refuses (it is busy with
a script, full, or has become a replica) has done nothing, so it is asked again as often.
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
"""With pauses of 0.2, 0.4, 0.8, 1, 1 s: a server's restart is waited for, an outage is told."""
PAUSES = ExponentialBackoff(cap=1.0, base=0.1)


def is_outage(error: Exception) -> bool:
    """Whether a server is away, or answers that it does nothing for now."""
    lost = isinstance(error, RedisConnectionError | RedisTimeoutError | OSError)
    return lost or word_of(error) is not None


def why_of(error: Exception) -> str:
    """What a person is told of such an error; a refusal of the server's in its own words."""
    return str(error) if word_of(error) is not None else reason_of(error)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer; raises the server's refusal when it has been given `TRIES` times."""
    for failures in range(1, TRIES):
        try:
            return await ask()
        except ResponseError as error:
            if word_of(error) is None:
                raise
            await asyncio.sleep(PAUSES.compute(failures))
    return await ask()
