"""Which circuit breakers are connected in this room's tests?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from multiagents.core.clock import FakeClock
from multiagents.storage.client import Edge
from multiagents.worker_sdk import breaker


@pytest.fixture
def edge(redis_url: str) -> Iterator[Edge]:
    edge = Edge(redis_url)
    yield edge
    edge.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def connected(edge: Edge, clock: FakeClock) -> Iterator[None]:
    before = breaker._connection
    breaker.connect(edge.execute, clock)
    yield
    breaker._connection = before


@pytest.fixture
def unconnected() -> Iterator[None]:
    before = breaker._connection
    breaker.disconnect()
    yield
    breaker._connection = before
