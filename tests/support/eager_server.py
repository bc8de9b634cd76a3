"""How do tests bring sagas on a real server into a state, without a worker?

They run eagerly, as users' tests do, over the server that command line and `doctor` read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from multiagents.core.clock import FakeClock
from multiagents.core.settings import Settings
from multiagents.hosting.assembly import Host
from multiagents.hosting.runtime import runtime_at
from multiagents.storage.client import Edge
from multiagents.testing.lab import SagaLab, eager
from multiagents.worker_sdk.validation import check_input


@contextmanager
def lab_on(url: str, settings: Settings | None = None) -> Iterator[SagaLab]:
    """A lab with its sagas on that server; it alone moves its clock, which is an hour behind."""
    runtime = runtime_at(url)
    with eager(runtime) as lab:
        given = settings or runtime.settings
        edge = Edge(url, perform=runtime.eager._perform)
        runtime.eager._host = Host(
            edge,
            settings=given,
            clock=FakeClock(round((time.time() - 3600) * 1000)),
            catalog=runtime.catalog,
            check_input=check_input,
        )
        try:
            yield lab
        finally:
            edge.close()
