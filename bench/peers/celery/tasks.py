"""Which tasks does the Celery peer run?

``app`` has default settings and a result backend.  ``late`` has the settings of Celery that protect
best against a killed worker.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from bench.harness import URL_VARIABLE, work

_URL = os.environ[URL_VARIABLE]

app = Celery("bench", broker=_URL, backend=_URL, set_as_current=False)
late = Celery("bench_late", broker=_URL, backend=_URL, set_as_current=False)
late.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)


def noop(context: Any) -> dict[str, int]:
    """One step.  After a fan-out it gets the list of all results."""
    return work()


step = app.task(name="bench.noop")(noop)
late_step = late.task(name="bench.noop")(noop)
