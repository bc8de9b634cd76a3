"""Which tasks do the two sides of the bench run?

The bare side is a Celery app with default settings and a result backend.  The saga side is the
package's own app.  The tasks of both do nothing.
"""

from __future__ import annotations

import time
from typing import Any

from celery import Celery, shared_task

from multiagents.core.policies import RetryPolicy
from multiagents.core.settings import get_settings
from multiagents.worker_sdk.decorators import worker

BARE_QUEUE = "bench_bare"
BARE_NOOP = "bench.bare_noop"
BARE_JOIN = "bench.bare_join"
PLAIN_NOOP = "bench.plain_noop"
WAIT_S = 86_400.0
"""Seconds until the retry of a failed step: longer than any bench."""
TOMORROW = RetryPolicy(max_attempts=2, backoff_s=WAIT_S, cap_s=WAIT_S, jitter=False)


def bare_noop(context: dict[str, Any]) -> dict[str, Any]:
    """One step of a bare chain."""
    return {"ok": 1}


def bare_join(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The join of a bare fan-out."""
    return {"ok": 1}


def make_bare(url: str) -> Celery:
    """The bare side's app, with its two tasks."""
    app = Celery("bare", broker=url, backend=url, set_as_current=False)
    app.conf.update(task_default_queue=BARE_QUEUE, broker_connection_retry_on_startup=True)
    app.task(bare_noop, name=BARE_NOOP)
    app.task(bare_join, name=BARE_JOIN)
    return app


bare = make_bare(get_settings().redis_url)
"""The app of the bare side's worker."""


@shared_task(name=PLAIN_NOOP)  # type: ignore[untyped-decorator]  # celery has no types
def plain_noop(context: dict[str, Any]) -> dict[str, Any]:
    """One step of a saga that is a plain Celery task."""
    return {"ok": 1}


@worker("bench_noop")
def noop(context: dict[str, Any]) -> dict[str, Any]:
    """One step of a saga."""
    return {"ok": 1}


@worker("bench_fail", retry=TOMORROW)
def fail(context: dict[str, Any]) -> dict[str, Any]:
    """One step that fails, and whose retry is tomorrow."""
    raise RuntimeError("fails so that its saga waits for a retry timer")


@worker("bench_burn")
def burn(context: dict[str, Any]) -> dict[str, Any]:
    """Burn processor time in Python, so that this thread and that of the leases share the GIL."""
    ends, rounds = time.monotonic() + context["seconds"], 0
    while time.monotonic() < ends:
        rounds += sum(range(1000)) > 0
    return {"rounds": rounds}


@worker("bench_hold")
def hold(context: Any) -> dict[str, Any]:
    """Run until the process is killed; the next attempt ends at once."""
    if context.attempt == 1:
        time.sleep(WAIT_S)
    return {"attempt": context.attempt}
