"""Do Flower and ``celery inspect`` tell the truth of sagas?

A real Flower and a real worker with ``-E`` serve all of it; a saga's history says what is true.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen
from uuid import uuid4

import pytest

from multiagents import Workflow, WorkflowBuilder
from multiagents.core import ids
from multiagents.devserver.server import EmbeddedServer
from tests.support.kill_rig import Rig
from tests.support.processes import ROOT, Worker, environment, free_port, wait_for

pytestmark = pytest.mark.processes
DATABASE = 12
UP_S = 40.0
SEEN_S = 10.0
"""Within which Flower has read what was sent; an idle worker looks for dead children each 5 s."""
CLOCK_S = 0.5
"""By which the times of events and of the history may differ."""


class Office(NamedTuple):
    """A rig, its worker and the address of its Flower."""

    rig: Rig
    worker: Worker
    flower: str

    def get(self, path: str) -> Any:
        with urlopen(f"{self.flower}{path}", timeout=5) as reply:
            return json.load(reply)

    def shown(self, saga_id: str) -> dict[str, Any]:
        """What Flower finds for a saga's id: task id -> task, without the saga's start."""
        found = self.get(f"/api/tasks?limit=1000&search={quote(saga_id)}")
        return {name: task for name, task in found.items() if name != saga_id}

    def states(self, saga_id: str) -> dict[str, str]:
        """Likewise, task id -> state."""
        return {name: task["state"] for name, task in self.shown(saga_id).items()}

    def status(self, path: str) -> int:
        try:
            with urlopen(f"{self.flower}{path}", timeout=5) as reply:
                return int(reply.status)
        except HTTPError as error:
            return error.code

    def active(self) -> list[dict[str, Any]]:
        """What ``celery inspect active`` names."""
        inspect = self.rig.app.control.inspect([self.worker.name], timeout=5)
        return list((inspect.active() or {}).get(self.worker.name, []))


@pytest.fixture(scope="module")
def rig(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(server.url, DATABASE, tmp_path_factory.mktemp("office"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def flower(rig: Rig) -> Iterator[str]:
    """Its address; it switches no events on: that is for ``-E``."""
    port = free_port()
    own = {"FLOWER_ADDRESS": "127.0.0.1", "FLOWER_ENABLE_EVENTS": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "multiagents", "flower", f"--port={port}"],
        cwd=ROOT,
        env=environment(rig.url, FLOWER_UNAUTHENTICATED_API="true", **own),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(rig.redis.pubsub_numpat, UP_S, "Flower's ear")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module", params=["prefork", "threads"])
def office(request: pytest.FixtureRequest, rig: Rig, flower: str) -> Iterator[Office]:
    with rig.worker("-P", request.param, "-E") as worker:
        worker.wait_ready()
        yield Office(rig, worker, flower)


# ---- what was done ----


def chain(*workers: str) -> Workflow:
    """Steps a, b, c, ... one after the other, each with a compensation."""
    builder = WorkflowBuilder(f"chain_{'_'.join(workers)}")
    for name, target in zip("abcdefghij", workers, strict=False):
        builder.add_step(name, target, compensation="kp_undo")
    return builder.build()


def fan(width: int) -> Workflow:
    """A step, ``width`` after it at once, and one that joins them."""
    builder = WorkflowBuilder(f"fan_{width}").add_step("a", "kp_do")
    names = [f"b{number}" for number in range(width)]
    for name in names:
        builder.add_step(name, "kp_do", depends_on=["a"])
    return builder.add_step("c", "kp_do", depends_on=names).build()


SAGAS = {
    "a chain": chain("kp_do", "kp_do", "kp_do", "kp_do"),
    "a step that is retried": chain("kp_do", "kp_flaky", "kp_do"),
    "a saga that is undone": chain("kp_do", "kp_do", "kp_fail"),
    "a fan-out": fan(20),
}
"""Each with steps that are continued."""
LONG = chain("kp_do", "kp_gate")
ONE = chain("kp_gate")


@pytest.fixture(scope="module")
def ended(office: Office) -> dict[str, str]:
    """The sagas, settled: name -> id."""
    started = {
        name: str(office.rig.runtime.start_saga.delay(workflow, {}).id)
        for name, workflow in SAGAS.items()
    }
    for saga_id in started.values():
        office.rig.wait_settled(saga_id)
    return started


class Attempt(NamedTuple):
    """One row of the truth."""

    kind: str
    step: str
    number: int
    worker: str
    began: float
    ended: float
    state: str


KINDS = {"step": "run", "undo": "undo"}
ENDS = {"succeeded": "SUCCESS", "failed": "FAILURE", "lost": "FAILURE"}


def attempts_begun(office: Office, saga_id: str) -> dict[str, tuple[str, str, int, str, float]]:
    """The claims in a saga's history: task id -> kind, step, number, worker and Unix time."""
    return {
        task_id: (kind, row["step"], row["attempt"], row["worker"], at)
        for task_id, kind, what, row, at in rows(office, saga_id)
        if what == "claimed"
    }


def attempts(office: Office, saga_id: str) -> dict[str, Attempt]:
    """The attempts of a saga that has ended: task id -> attempt."""
    begun = attempts_begun(office, saga_id)
    found = {
        task_id: Attempt(*begun[task_id], ended=at, state=ENDS[what])
        for task_id, _, what, _, at in rows(office, saga_id)
        if what in ENDS
    }
    assert found.keys() == begun.keys()
    return found


def rows(office: Office, saga_id: str) -> Iterator[tuple[str, str, str, dict[str, Any], float]]:
    """What its history says of attempts: task id, kind, what happened, the row and Unix time."""
    for row in office.rig.history(saga_id):
        prefix, _, what = row["type"].partition("_")
        if prefix in KINDS and row["attempt"]:
            kind = KINDS[prefix]
            task_id = ids.step_id(saga_id, kind, row["step"], row["attempt"])
            yield task_id, kind, what, row, datetime.fromisoformat(row["at"]).timestamp()


@pytest.mark.parametrize("name", SAGAS)
def test_flower_shows_every_attempt_of_a_saga(
    office: Office, ended: dict[str, str], name: str
) -> None:
    """Steps and undos, continued or by message: name, arguments, state, times and worker."""
    saga_id, workflow = ended[name], SAGAS[name]
    truth = attempts(office, saga_id)
    wait_for(lambda: settled(office.shown(saga_id), truth), SEEN_S, f"{name} in Flower")
    shown = office.shown(saga_id)
    assert shown.keys() == truth.keys()
    for task_id, attempt in truth.items():
        task, step = shown[task_id], workflow.by_name[attempt.step]
        undo = attempt.kind == "undo"
        assert task["name"] == (step.compensation if undo else step.worker)
        what = ("undo", attempt.step) if undo else (attempt.step,)
        assert task["args"] == repr((saga_id, *what, attempt.number))
        assert task["state"] == attempt.state
        assert task["worker"] == attempt.worker == office.worker.name
        check_times(task, attempt)


def settled(shown: dict[str, Any], truth: dict[str, Attempt]) -> bool:
    return [shown.get(each, {}).get("state") for each in truth] == [
        attempt.state for attempt in truth.values()
    ]


def check_times(task: dict[str, Any], attempt: Attempt) -> None:
    """Each attempt has its own: not those of the delivery that it came with."""
    end = task["succeeded"] if attempt.state == "SUCCESS" else task["failed"]
    assert task["received"] <= task["started"] <= end
    assert abs(task["started"] - attempt.began) < CLOCK_S
    assert abs(end - attempt.ended) < CLOCK_S
    if attempt.state == "SUCCESS":
        assert task["runtime"] <= end - task["started"] + CLOCK_S


def test_a_failed_attempt_shows_its_error(office: Office, ended: dict[str, str]) -> None:
    """The error and its line in the user's code are shown, for a continued step too."""
    task = office.get(f"/api/task/info/{ended['a saga that is undone']}:c:1")
    assert task["exception"].startswith("NonRetryableError('broken'")
    assert "kill_workers.py" in task["traceback"]


def test_a_search_for_undo_finds_a_sagas_compensations(
    office: Office, ended: dict[str, str]
) -> None:
    saga_id = ended["a saga that is undone"]
    wait_for(lambda: f"{saga_id}:a:undo1" in office.shown(saga_id), SEEN_S, "the last undo")
    found = office.shown(f"{saga_id} undo")
    assert sorted(found) == [f"{saga_id}:{step}:undo1" for step in "abc"]


def test_a_second_message_of_an_attempt_changes_nothing_in_flower(
    office: Office, ended: dict[str, str]
) -> None:
    """The attempt keeps its times: a fan-out has many such messages."""
    task_id = f"{ended['a chain']}:a:1"
    before = office.get(f"/api/task/info/{task_id}")
    app, signature = office.rig.app, [ended["a chain"], "run", "a", 1]
    app.send_task("kp_do", signature, task_id=task_id, queue="io")
    received = f"Task kp_do[{task_id}] received"
    wait_for(lambda: office.worker.log.count(received) == 2, SEEN_S, "the second message")
    later = str(office.rig.runtime.start_saga.delay(chain("kp_do"), {}).id)
    wait_for(lambda: "SUCCESS" in office.states(later).values(), SEEN_S, "a saga after it")
    assert office.get(f"/api/task/info/{task_id}") == before


def test_flower_finds_a_sagas_outcome(office: Office, ended: dict[str, str]) -> None:
    """Flower finds it by the saga's id, in the results of its app."""
    assert office.status(f"/api/task/result/{ended['a chain']}") == 200


# ---- what is at work ----


def test_a_continued_step_is_shown_at_work(office: Office) -> None:
    """The step whose message arrived has ended, and is shown as ended."""
    gate = uuid4().hex
    saga_id = str(office.rig.runtime.start_saga.delay(LONG, {"gates": {"1": gate}}).id)
    office.rig.wait_effect(saga_id, "run", step="b")
    states = {f"{saga_id}:a:1": "SUCCESS", f"{saga_id}:b:1": "STARTED"}
    wait_for(lambda: office.states(saga_id) == states, SEEN_S, "b at work in Flower")
    (active,) = office.active()
    assert (active["id"], active["name"]) == (f"{saga_id}:b:1", "kp_gate")
    assert active["args"] == [saga_id, "run", "b", 1]
    began = attempts_begun(office, saga_id)[f"{saga_id}:b:1"][-1]
    assert abs(active["time_start"] - began) < CLOCK_S
    office.rig.open(gate)
    office.rig.wait_settled(saga_id)
    wait_for(lambda: not office.active(), SEEN_S, "nothing at work")


@pytest.mark.parametrize("office", ["prefork"], indirect=True)
def test_a_continued_step_whose_process_dies_has_failed(office: Office) -> None:
    """The step whose message arrived had ended before, and stays successful."""
    workflow = chain("kp_do", "kp_suicide")
    saga_id = str(office.rig.runtime.start_saga.delay(workflow, {}).id)
    assert office.rig.wait_settled(saga_id)["state"] == "compensated"
    states = {f"{saga_id}:b:{number}": "FAILURE" for number in (1, 2)}
    states |= {f"{saga_id}:{name}": "SUCCESS" for name in ("a:1", "a:undo1", "b:undo1")}
    wait_for(lambda: office.states(saga_id) == states, SEEN_S, "the ends in Flower")
    assert "WorkerLostError" in office.shown(saga_id)[f"{saga_id}:b:1"]["exception"]


def waiting(office: Office, gate: str) -> str:
    """A saga whose message waits behind two steps that hold the worker until the gate opens."""
    given = {"gates": {"1": gate}}
    holding = [str(office.rig.runtime.start_saga.delay(ONE, given).id) for _ in range(2)]
    for each in holding:
        office.rig.wait_effect(each, "run", step="a")
    return str(office.rig.runtime.start_saga.delay(ONE, {"gates": {"1": f"{gate}-own"}}).id)


def test_a_step_of_a_paused_saga_is_not_shown_at_work(office: Office) -> None:
    """Its message came to nothing: it is sent again when the saga goes on."""
    saga_id = waiting(office, gate := uuid4().hex)
    office.rig.runtime.call("pause", saga_id)
    office.rig.open(gate)
    task_id = f"{saga_id}:a:1"
    wait_for(lambda: office.states(saga_id) == {task_id: "RETRY"}, SEEN_S, "no start")
    assert office.shown(saga_id)[task_id]["exception"] == "its saga is paused"
    office.rig.runtime.call("resume", saga_id)
    wait_for(lambda: office.states(saga_id) == {task_id: "STARTED"}, SEEN_S, "the start")
    office.rig.open(f"{gate}-own")
    wait_for(lambda: office.states(saga_id) == {task_id: "SUCCESS"}, SEEN_S, "the end")


def test_a_step_of_a_cancelled_saga_is_shown_as_revoked(office: Office) -> None:
    """It was cancelled before the step's message came."""
    saga_id = waiting(office, gate := uuid4().hex)
    office.rig.runtime.call("cancel", saga_id)
    office.rig.open(gate)
    wait_for(lambda: office.states(saga_id) == {f"{saga_id}:a:1": "REVOKED"}, SEEN_S, "no start")
