"""What do the two sides of the bench run?

The bare side is a Celery app with default settings and a result backend; ours is the package's
own.  Both do the same nothing.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from multiagents.core.settings import get_settings
from multiagents.worker_sdk.decorators import worker

_URL = get_settings().redis_url

bare = Celery("bare", broker=_URL, backend=_URL, set_as_current=False)
bare.conf.update(task_default_queue="bench_bare", broker_connection_retry_on_startup=True)


@bare.task(name="bench.bare_noop")  # type: ignore[untyped-decorator]  # celery has no types
def bare_noop(context: dict[str, Any]) -> dict[str, Any]:
    """One step of the bare chain."""
    return {"ok": 1}


@worker("bench_noop")
def noop(context: dict[str, Any]) -> dict[str, Any]:
    """One step of the saga."""
    return {"ok": 1}
