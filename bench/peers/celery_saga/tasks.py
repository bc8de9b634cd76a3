"""Which tasks does the celery-saga peer run?"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery_saga import Saga, set_default_backend
from celery_saga.backends import RedisSagaBackend

from bench.harness import URL_VARIABLE, work

_URL = os.environ[URL_VARIABLE]

app = Celery("bench_saga", broker=_URL, backend=_URL)
set_default_backend(RedisSagaBackend(url=_URL))


@app.task(name="bench.noop")
def noop(**context: Any) -> dict[str, int]:
    """One step."""
    return work()


def chain(length: int) -> Saga:
    """A chain of steps without compensations."""
    saga = Saga(f"chain{length}")
    for _ in range(length):
        saga.add_step(noop, no_compensation=True)
    return saga


def fan(width: int) -> Saga:
    """Steps at the same time, then one."""
    return Saga(f"fan{width}").add_parallel(*[noop] * width).add_step(noop, no_compensation=True)
