"""Do many processes that complete branches of one saga at once, or many threads, lose anything?"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from threading import Thread

import pytest

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.clock import SystemClock
from multiagents.core.entries import Succeeded, decode
from multiagents.core.ports import WorkerInfo
from multiagents.core.settings import Settings
from multiagents.core.states import Kind, SagaState
from multiagents.engine.catalog import Catalog
from multiagents.engine.composition import compose
from multiagents.engine.coordinator import Coordinator
from multiagents.engine.messages import Publish
from multiagents.saga.outcome import SagaOutcome
from multiagents.saga.targets import TOLD
from multiagents.storage import replies
from multiagents.storage import sagas as store
from multiagents.storage.client import Edge
from multiagents.storage.keys import SagaKeys
from multiagents.workflows.step import Step
from multiagents.workflows.workflow import Workflow
from tests.support.processes import ROOT, environment

PROCESSES, SAGAS, WIDTH = 8, 10, 250
"""2,500 branch completions, and a join for each saga.

As many processes as sagas, nearly: each completion meets another one of its saga.
"""


def workflow(width: int = WIDTH) -> Workflow:
    """Many branches and their join."""
    branches = [Step(name=f"b{number}", worker="branch") for number in range(width)]
    join = Step(name="join", worker="branch", depends_on=tuple(step.name for step in branches))
    return Workflow(name="wide", steps=(*branches, join))


class Post:
    """Takes messages and outcomes in this process."""

    def __init__(self) -> None:
        self.messages: list = []
        self.ended: list = []

    def __call__(self, effect):
        if isinstance(effect, Publish):
            self.messages.extend(effect.messages)
        elif isinstance(effect, SagaOutcome):
            self.ended.append(effect)
            return TOLD
        return True


def host(redis_url: str) -> tuple[Edge, Coordinator, Post]:
    post, clock = Post(), SystemClock()
    catalog = Catalog(clock)
    catalog.add_local(WorkerInfo("branch"))
    settings = Settings(redis_url=redis_url)
    coordinator = compose(settings=settings, clock=clock, directory=catalog)
    return Edge(redis_url, perform=post), coordinator, post


def complete(edge: Edge, coordinator: Coordinator, saga_id: str, step: str) -> None:
    """What a worker does for one message."""
    call = coordinator.slots.claim(
        saga_id, AttemptRef(Kind.RUN, step, 1), delivery=step, queue="io"
    )
    held = edge.run(call)
    assert held is not None, f"{step} of {saga_id} was taken twice"
    done = Succeeded(coordinator.clock.now_ms(), Kind.RUN, step, 1, held.nonce)
    edge.run(coordinator.report(saga_id, done, result=json.dumps({step: 1})))


def run_share(redis_url: str, share: list[list[str]]) -> None:
    """One worker process: complete the given branches, then whatever they made ready."""
    edge, coordinator, post = host(redis_url)
    for saga_id, step in share:
        complete(edge, coordinator, saga_id, step)
    for message in post.messages:
        complete(edge, coordinator, message.saga_id, message.step)


@pytest.mark.processes
def test_eight_processes_complete_thousands_of_branches_and_lose_none(redis_url):
    """Every completion is in the log and in the state, every join ran once, all sagas ended."""
    edge, coordinator, post = host(redis_url)
    flow = workflow()
    for number in range(SAGAS):
        start = coordinator.start(
            flow,
            saga_id=f"saga-{number}",
            waiting=(f"saga-{number}", ""),
            data={"input": "{}", "meta": "{}"},
        )
        edge.run(start)
    work = [[message.saga_id, message.step] for message in post.messages]
    assert len(work) == SAGAS * WIDTH
    random.Random(1).shuffle(work)
    code = (
        "import sys, json; from tests.processes.celery.test_contention import run_share; "
        "run_share(sys.argv[1], json.load(sys.stdin))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, redis_url],
            cwd=ROOT,
            env=environment(redis_url),
            stdin=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for number, process in enumerate(processes):
        assert process.stdin is not None
        json.dump(work[number::PROCESSES], process.stdin)
        process.stdin.close()
    assert [process.wait(120) for process in processes] == [0] * PROCESSES
    for number in range(SAGAS):
        saga, _ = edge.run(coordinator.repository.current(f"saga-{number}"))
        assert saga.state is SagaState.COMPLETED
        entries = edge.execute(store.log(coordinator.repository.keys(saga.id)))
        kinds = Counter(decode(text).type for text in entries)
        assert kinds == {"started": 1, "claimed": WIDTH + 1, "succeeded": WIDTH + 1}
    edge.close()


def test_threads_that_end_leave_no_connection_behind(redis_url: str):
    """Each thread has a connection of its own for scripts; a program may have any number."""
    edge = Edge(redis_url)
    keys = SagaKeys("nobody")

    def ask_once() -> None:
        assert edge.execute(store.load(keys)) == replies.GONE

    ask_once()
    before = len(edge.client.client_list())
    for _ in range(150):
        thread = Thread(target=ask_once)
        thread.start()
        thread.join()
    assert len(edge.client.client_list()) <= before + 3
    edge.close()
