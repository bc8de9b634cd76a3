"""Which actors does the Dramatiq peer run?"""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as LimiterBackend
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend as ResultBackend

from bench.harness import URL_VARIABLE, work

_URL = os.environ[URL_VARIABLE]

broker = RedisBroker(url=_URL)
broker.add_middleware(Results(backend=ResultBackend(url=_URL)))
broker.add_middleware(GroupCallbacks(LimiterBackend(url=_URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def noop(context: Any) -> dict[str, int]:
    """One step."""
    return work()
