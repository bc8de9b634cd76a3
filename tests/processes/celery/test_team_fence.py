"""Is every task of a team fenced where a broker delivers it again, however it was made?

The app of these tests makes its tasks in all the ways that Celery knows (`fenced_app`).  A task
counts its runs, and those of a ``before_start`` of its own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, Task, signals

from multiagents.core.names import HEADER
from multiagents.core.states import Kind
from multiagents.hosting import fence, report_retry
from multiagents.hosting.step_task import WorkerTask
from multiagents.storage.client import UNREACHABLE, Edge
from multiagents.storage.sagas import Attempt
from tests.support.processes import Worker, run_script

pytestmark = pytest.mark.processes

APP = "tests.support.fenced_app"
RUN_ALL = """
runs = lambda what: int(app.backend.client.get("runs:" + what) or 0)
started = {name: runtime.start_saga.delay(name, {}) for name in TASKS}
for saga in started.values():
    saga.get(timeout=30)
first = {name: (runs(name), runs("before:" + name)) for name in TASKS}
for name, saga in started.items():
    mark = {HEADER: [saga.id, "run", name, 1, "", 0]}
    task_id = ids.step_id(saga.id, "run", name, 1)
    app.send_task(name, task_id=task_id, headers=mark)
app.send_task("plain").get(timeout=30)
again = {name: (runs(name), runs("before:" + name)) for name in TASKS}
print((first, again))
"""
SENT_IN_A_LOST_SECOND = """
runtime.call("start", "outlived", {"id": "saga"}, task_id="saga")
work, field = SagaKeys("saga").work, "c:run:outlived"
claim = str(app.backend.client.hget(work, field), "ascii")
attempt, nonce, rest = claim.split("|", 2)
app.backend.client.set("claim", claim)
app.backend.client.hset(work, field, f"{attempt}|{'0' * len(nonce)}|{rest}")
print(True)
"""
TOLD = """
told = lambda: runtime.call("get", "saga")["needs_attention"]
wait_for(told, 20.0, "the report of an unknown claim")
print(repr(runtime.call("get", "saga")["state"]))
"""


def client(url: str, body: str) -> Any:
    """What a client script of the team prints, as a value."""
    head = (
        f"from {APP} import TASKS, app, runtime\n"
        "from multiagents.core import ids\n"
        "from multiagents.core.names import HEADER\n"
        "from multiagents.storage.keys import SagaKeys\n"
        "from tests.support.processes import wait_for\n"
    )
    return ast.literal_eval(run_script(head + body, url, deadline_s=90))


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_task_of_any_kind_does_not_run_again(redis_url: str, pool: str) -> None:
    """E13: nor does a ``before_start`` of its own, whether it calls the inherited one or not."""
    with Worker(redis_url, "-c", "1", "-P", pool, app=APP) as worker:
        worker.wait_ready()
        first, again = client(redis_url, RUN_ALL)
    own = {"silent", "polite", "static", "heir"}
    assert first == {name: (1, int(name in own)) for name in first}
    assert len(first) == 10
    assert again == {**first, "plain": (2, 0)}


def test_the_link_of_a_task_with_a_base_counts_only_for_the_claim_it_held(redis_url: str) -> None:
    """E5: it began under a claim that is not in the log, and the present claim has its id."""
    assert client(redis_url, SENT_IN_A_LOST_SECOND)
    with Worker(redis_url, "-c", "1", "-P", "solo", app=APP) as worker:
        worker.wait_ready()
        assert client(redis_url, TOLD) == "running"


@pytest.fixture(autouse=True)
def celery_says_the_end() -> Iterator[None]:
    """Where a test calls the fence itself, no tracer sends the signal of the task's end."""
    yield
    signals.task_postrun.send(sender=None)


class Host:
    """An engine that has been asked ``count`` times whether a delivery holds its attempt."""

    def __init__(self, *, away: int = 0) -> None:
        self.count = 0
        self.away = away
        """So often it does not answer."""
        self.host = self.engine = self.coordinator = self.repository = self

    def fence(self, saga_id: str, task_id: str, version: str) -> list[Attempt]:
        if self.away:
            self.away -= 1
            raise UNREACHABLE[0]("away")
        self.count += 1
        return [Attempt(saga_id, Kind.RUN, "a", 1, task_id)]

    def workflow_name(self, version: str) -> str:
        return "order"

    def persist(self, ask: Any, **told: str) -> Any:
        edge = Edge("redis://127.0.0.1:1/0")
        return report_retry.persist(ask, edge=edge, is_needed=lambda: False, **told)


def base() -> type[Task]:
    """A base class as in Celery's manual."""
    return type("Base", (Task,), {"abstract": True})


def begin(task_class: type[Task], *, mark: bool = True) -> None:
    """What Celery's tracer does first with a delivery."""
    task = task_class()
    task.bind(Celery(set_as_current=False))
    task.push_request(id="d", **({HEADER: ["s", "run", "a", 1, "", 0]} if mark else {}))
    task.before_start("d", [], {})


def test_a_task_that_is_to_begin_waits_for_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message is acked already, so an error would cost it all of its time-out."""
    pauses: list[float] = []
    monkeypatch.setattr("multiagents.hosting.report_retry.time.sleep", pauses.append)
    task_class, host = base(), Host(away=2)
    fence.fence(task_class, host)
    begin(task_class)
    assert (host.count, len(pauses)) == (1, 2)


def test_a_class_that_is_fenced_twice_asks_once_and_the_last_worker() -> None:
    """Two apps may share a class, and a class may call the ``before_start`` of a fenced one."""
    parent, one, other = base(), Host(), Host()
    polite = {"before_start": lambda task, *args: parent.before_start(task, *args)}
    child = type("Child", (parent,), polite)
    for host in (one, one, other, other):
        fence.fence(child, host)
        fence.fence(parent, host)
    begin(child)
    begin(parent)
    assert (one.count, other.count) == (0, 2)


def test_a_message_that_is_no_step_and_a_worker_task_ask_nothing() -> None:
    """The fence costs a round trip, and only what has none of its own pays it."""
    plain, host = base(), Host()
    fence.fence(plain, host)
    fence.fence(WorkerTask, host)
    begin(plain, mark=False)
    begin(type("Work", (WorkerTask, plain), {}))
    assert host.count == 0
    assert "before_start" not in vars(WorkerTask)
