"""Does continuing in one process respect what Celery's users set for their pools?"""

from __future__ import annotations

import pytest
from celery import Celery

from multiagents import WorkflowBuilder, attach
from multiagents.core.settings import Settings
from tests.support.processes import Worker

pytestmark = pytest.mark.processes


def test_continued_steps_wear_a_child_out(redis_url):
    """E14: a child that has run ``max_tasks_per_child`` steps continues none, and is replaced."""
    options = ("-Q", "llm,io", "-c", "1", "--max-tasks-per-child", "3")
    with Worker(redis_url, *options, imports="tests.support.basic_workers") as worker:
        worker.wait_ready()
        app = Celery("worn", broker=redis_url, backend=redis_url, set_as_current=False)
        runtime = attach(app, Settings(redis_url=redis_url))
        builder = WorkflowBuilder("worn")
        for number in range(15):
            builder.add_step(f"s{number}", "whoami")
        result = runtime.start_saga.delay(builder.build(), {})
        result.get(timeout=60)
        steps = runtime.call("get", result.id)["step_results"]
        app.close()
    pids = [steps[f"s{number}"][f"s{number}"] for number in range(15)]
    most = max(pids.count(pid) for pid in pids)
    assert most <= 5
    assert pids[0] == pids[2]
