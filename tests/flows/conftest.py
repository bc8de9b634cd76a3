"""Which engine do the tests of flows drive?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.one_process import Bench


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    """One engine process over an empty server."""
    found = Bench(redis_url)
    yield found
    found.edge.close()
