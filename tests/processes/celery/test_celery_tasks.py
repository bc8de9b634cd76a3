"""What becomes of a saga when Celery drops, revokes, limits or loses the task of a step?

One prefork worker of a team's own app for all of it: none of this may end that worker.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from multiagents import Workflow, WorkflowBuilder
from multiagents.core import ids
from multiagents.core.ports import WorkerInfo
from multiagents.core.states import Kind
from multiagents.devserver.server import EmbeddedServer
from tests.support.celery_rig import QUICK, TEAM, CeleryRig, after_work, ended, failures, plain
from tests.support.processes import Worker, wait_for

pytestmark = pytest.mark.processes

DATABASE = 14
LEASE_S = "1"
LOOP_S = 3.0
"""The time-out of a task that kills its process; Celery begins it again as often as it can."""
DEADLINE_S = 8.0
"""Of a saga whose step never begins."""
NOTICED_S = 10.0
"""An idle main process of Celery looks for lost children every 5 s."""


class Team(NamedTuple):
    """A rig and its one worker, which outlives all tests."""

    rig: CeleryRig
    worker: Worker


@pytest.fixture(scope="module")
def shared(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    rig = CeleryRig(server.url, DATABASE, tmp_path_factory.mktemp("team"))
    with rig.team("-c", "3", MULTIAGENTS_LEASE_S=LEASE_S) as worker:
        worker.wait_ready()
        yield Team(rig, worker)
    rig.close()


@pytest.fixture
def team(shared: Team) -> Iterator[Team]:
    """The worker, which is still the same process at the end."""
    yield shared
    assert shared.worker.process.poll() is None, shared.worker.log[-2000:]


# ---- dropped before it runs ----


def test_a_step_whose_task_no_worker_has_is_retried_and_compensated(team: Team) -> None:
    """The worker that received the message reports it at once, without waiting for the timeout."""
    saga_id = team.rig.begin(after_work(plain("nobody")))
    saga = ended(team.rig, saga_id, "UnknownTask")
    assert failures(team.rig, saga_id) == [("failed", 1), ("failed", 2)]
    assert f"worker {team.worker.name} has no task 'team.nobody'" in saga["error"]["message"]
    assert len(team.rig.runs(saga_id, "undo")) == 1  # of a; b did nothing


def test_a_step_whose_worker_function_nobody_has_is_parked(team: Team) -> None:
    """Rule 9: it is sent three times, then parked with a message that states what to do."""
    name = f"ct_gone_{uuid4().hex[:6]}"
    team.rig.runtime.host.catalog.add_local(_info(name))
    saga_id = team.rig.begin(after_work(name, queue=TEAM))
    wait_for(lambda: team.rig.saga(saga_id)["needs_attention"], 15.0, "parking")
    saga = team.rig.saga(saga_id)
    assert (saga["state"], saga["steps"]["b"]["state"]) == ("running", "parked")
    assert saga["steps"]["b"]["error"]["message"].startswith(f"no running worker knows {name!r}")
    assert team.worker.log.count(f"function={name} ") == 1  # said once, of three messages


def _info(name: str) -> WorkerInfo:
    """What the client believes of a worker function that is deployed nowhere."""
    return WorkerInfo(name=name, queue=TEAM)


def test_an_expired_step_is_retried_and_compensated(team: Team) -> None:
    """A team whose messages expire: what was never begun has failed clean."""
    saga_id = team.rig.begin(after_work(plain("late")))
    ended(team.rig, saga_id, "TaskExpired")
    assert failures(team.rig, saga_id) == [("failed", 1), ("failed", 2)]
    assert team.rig.runs(saga_id, "late") == []
    assert len(team.rig.runs(saga_id, "undo")) == 1


def test_a_command_that_expires_each_time_is_sent_until_its_saga_is_over(team: Team) -> None:
    """A team that limits all its messages: `explain` counts them, and the deadline ends it."""
    workflow = (
        WorkflowBuilder(f"late_{uuid4().hex[:8]}", timeout_s=DEADLINE_S)
        .add_step("a", plain("work"), compensation=plain("undo"))
        .add_step("b", "ct_late", queue=TEAM, timeout_s=1.0, compensation=plain("undo"))
        .build()
    )
    saga_id = team.rig.begin(workflow)
    wait_for(lambda: "3 times so far" in told(team.rig, saga_id), DEADLINE_S, "three sendings")
    assert team.rig.saga(saga_id)["needs_attention"] is False
    ended(team.rig, saga_id, "SagaDeadline", step=None)
    assert team.rig.effects(saga_id) == []
    assert len(team.rig.runs(saga_id, "undo")) == 1  # of a; b did nothing


def told(rig: CeleryRig, saga_id: str) -> str:
    """What `explain` says."""
    return str(rig.runtime.call("explain", saga_id)["text"])


def test_a_step_whose_message_cannot_be_made_fails_itself(team: Team) -> None:
    """Not the step before it, whose worker was to send it: that has ended well, and is undone."""
    saga_id = team.rig.begin(after_work(plain("misrouted")))
    saga = ended(team.rig, saga_id, "Unsendable")
    assert saga["error"]["message"].startswith("task 'team.misrouted' cannot be sent (TypeError")
    assert failures(team.rig, saga_id) == [("failed", 1)]
    assert failures(team.rig, saga_id, "a") == []
    assert len(team.rig.runs(saga_id, "work")) == 1
    assert len(team.rig.runs(saga_id, "undo")) == 1  # of a; b did nothing


def revoked(team: Team, workflow: Workflow, kind: Kind = Kind.RUN, step: str = "b") -> str:
    """Start a saga the first attempt of whose step is revoked before it can begin."""
    saga_id = str(uuid4())
    task_id = ids.step_id(saga_id, kind, step, 1)
    team.rig.app.control.revoke(task_id, destination=[team.worker.name], reply=True)
    wait_for(lambda: f"Tasks flagged as revoked: {task_id}" in team.worker.log, 10.0, "revoke")
    return team.rig.begin(workflow, saga_id)


@pytest.mark.parametrize("target", [plain("work"), "kp_do"], ids=["plain", "worker"])
def test_a_revoked_step_is_not_done_and_not_retried(team: Team, target: Any) -> None:
    """After a revocation the saga compensates, and undoes only what was done."""
    queue = {"queue": TEAM} if isinstance(target, str) else {}
    saga_id = revoked(team, after_work(target, **queue))
    saga = ended(team.rig, saga_id, "TaskRevoked")
    assert saga["error"]["message"].endswith("was revoked before it began")
    assert failures(team.rig, saga_id) == [("failed", 1)]
    assert team.rig.effects(saga_id) == []
    assert len(team.rig.runs(saga_id, "work")) == 1  # a
    assert len(team.rig.runs(saga_id, "undo")) == 1  # of a


@pytest.mark.parametrize("target", [plain("gate"), "kp_gate"], ids=["plain", "worker"])
def test_a_step_revoked_while_it_runs_is_undone(team: Team, target: Any) -> None:
    """``terminate=True`` ends its process: what it had done by then is not known."""
    queue = {"queue": TEAM} if isinstance(target, str) else {}
    saga_id = team.rig.begin(after_work(target, **queue), gates={"1": "never"})
    wait_for(lambda: _has_begun(team.rig, saga_id), 10.0, "b at work")
    task_id = ids.step_id(saga_id, Kind.RUN, "b", 1)
    team.rig.app.control.revoke(task_id, destination=[team.worker.name], terminate=True)
    saga = ended(team.rig, saga_id, "TaskRevoked")
    assert saga["error"]["message"].endswith("was revoked while it ran")
    assert failures(team.rig, saga_id) == [("failed", 1)]
    assert len(team.rig.runs(saga_id, "undo")) == 2


def two_workers(queue: str, first: str, second: str) -> Workflow:
    """Steps ``a`` and ``b`` of one queue: a worker that has done one goes on with the other."""
    return (
        WorkflowBuilder(f"two_workers_{uuid4().hex[:8]}")
        .add_step("a", first, queue=queue, compensation=plain("undo"))
        .add_step("b", second, queue=queue, compensation=plain("undo"), retry=QUICK)
        .build()
    )


def test_revoking_a_step_that_was_continued_does_nothing(team: Team) -> None:
    """Flower shows its id, but no message has it: Celery finds nothing, before or while it runs."""
    ahead = revoked(team, two_workers(TEAM, "kp_do", "kp_do"))
    assert team.rig.wait_settled(ahead)["state"] == "completed"
    saga_id = team.rig.begin(two_workers(TEAM, "kp_do", "kp_gate"), gates={"1": "continued"})
    pid = team.rig.wait_effect(saga_id, "run", step="b").pid
    task_id = ids.step_id(saga_id, Kind.RUN, "b", 1)
    told = team.rig.app.control.revoke(
        task_id, destination=[team.worker.name], terminate=True, reply=True
    )
    assert told == [{team.worker.name: {"ok": "terminate: tasks unknown"}}]
    team.rig.open("continued")
    assert team.rig.wait_settled(saga_id)["state"] == "completed"
    assert [(e.step, e.attempt, e.pid) for e in team.rig.effects(saga_id, "run")] == [
        ("a", 1, pid),
        ("b", 1, pid),
    ]
    assert f"kp_gate[{task_id}] received" not in team.worker.log


def test_revoking_the_message_that_a_step_was_continued_from_ends_it(team: Team) -> None:
    """With ``terminate=True`` its process ends, at any step."""
    saga_id = team.rig.begin(two_workers(TEAM, "kp_do", "kp_gate"), gates={"1": "never"})
    team.rig.wait_effect(saga_id, "run", step="b")
    task_id = ids.step_id(saga_id, Kind.RUN, "a", 1)
    team.rig.app.control.revoke(task_id, destination=[team.worker.name], terminate=True)
    saga = ended(team.rig, saga_id, "TaskRevoked")
    assert saga["error"]["message"] == f"its Celery task {task_id} was revoked while it ran"
    assert failures(team.rig, saga_id, "a") == []
    assert failures(team.rig, saga_id) == [("failed", 1)]


def test_without_continuation_every_step_can_be_revoked(shared: Team) -> None:
    """Each step is then a message of its own, which Celery can revoke."""
    rig = shared.rig
    with rig.team("-c", "1", "-Q", "single", MULTIAGENTS_CONTINUATION="false") as worker:
        worker.wait_ready()
        saga_id = revoked(Team(rig, worker), two_workers("single", "kp_do", "kp_do"))
        saga = ended(rig, saga_id, "TaskRevoked")
    assert saga["error"]["message"].endswith("was revoked before it began")
    assert failures(rig, saga_id) == [("failed", 1)]
    assert [effect.step for effect in rig.effects(saga_id)] == ["a"]
    assert len(rig.runs(saga_id, "undo")) == 1  # of a; b did nothing


def _has_begun(rig: CeleryRig, saga_id: str) -> bool:
    return bool(rig.runs(saga_id, "gate") or rig.effects(saga_id, "run"))


def test_a_revoked_undo_is_parked(team: Team) -> None:
    """A compensation that shall not run leaves a dead letter, not a saga that is called undone."""
    workflow = WorkflowBuilder("revoked_undo").add_step(
        "b", "kp_fail", queue=TEAM, compensation=plain("undo")
    )
    saga_id = revoked(team, workflow.build(), Kind.UNDO)
    saga = team.rig.wait_end(saga_id)
    assert (saga["state"], saga["needs_attention"]) == ("failed", True)
    compensation = saga["steps"]["b"]["compensation"]
    assert (compensation["state"], compensation["error"]["type"]) == ("parked", "TaskRevoked")


# ---- limits and exceptions of Celery's own ----


def test_a_hard_time_limit_is_one_failure(team: Team) -> None:
    """Celery calls the errback of a killed child twice: one attempt, one end, one undo each."""
    saga_id = team.rig.begin(after_work(plain("overrun")))
    ended(team.rig, saga_id, "TimeLimitExceeded")
    assert failures(team.rig, saga_id) == [("failed", 1), ("failed", 2)]
    assert len(set(team.rig.runs(saga_id, "overrun"))) == 2
    assert len(team.rig.runs(saga_id, "undo")) == 2  # of b and of a
    assert team.worker.log.count("Hard time limit (1s) exceeded for team.overrun") == 2


@pytest.mark.parametrize("name", ["ct_bug", "ct_async_bug"])
def test_the_traceback_in_the_log_is_the_functions_own(team: Team, name: str) -> None:
    """The log leaves out the engine's frames above the function."""
    saga_id = team.rig.begin(after_work(name, queue=TEAM))
    ended(team.rig, saga_id, "ZeroDivisionError")
    logged = re.findall(rf"Task {name}\[.*raised (?s:.*?)\nZeroDivisionError:", team.worker.log)
    found = [re.findall(r'File ".*", line \d+, in (\w+)', text) for text in logged]
    assert found == [["trace_task", "__protected_call__", name, "_divide"]] * 2


@pytest.mark.parametrize("what", ["Ignore", "Reject", "Retry", "MemoryError"])
def test_an_exception_of_celerys_own_is_a_failed_attempt(team: Team, what: str) -> None:
    """Ignore and Retry would leave the attempt open for ever, MemoryError end the whole worker."""
    saga_id = team.rig.begin(after_work("ct_raise", queue=TEAM), what=what)
    saga = ended(team.rig, saga_id, "WorkerExecutionError")
    said = "ran out of memory" if what == "MemoryError" else f"raised Celery's {what}"
    assert said in saga["error"]["message"]
    assert failures(team.rig, saga_id) == [("failed", 1), ("failed", 2)]


def test_a_plain_task_that_ignores_itself_is_decided_by_its_time_out(team: Team) -> None:
    """No report of its end arrives; the error states what is known."""
    saga_id = team.rig.begin(after_work(plain("ignore", timeout_s=1)))
    saga = ended(team.rig, saga_id, "StepTimeout")
    assert "task 'team.ignore' reported nothing" in saga["error"]["message"]
    assert failures(team.rig, saga_id) == [("lost", 1), ("lost", 2)]


def test_a_plain_task_that_rejects_itself_is_a_failed_attempt(team: Team) -> None:
    """Celery calls the errback, so it is known at once; the step's policy retries it."""
    saga_id = team.rig.begin(after_work(plain("reject")))
    ended(team.rig, saga_id, "Reject")
    assert failures(team.rig, saga_id) == [("failed", 1), ("failed", 2)]
    assert len(team.rig.runs(saga_id, "reject")) == 2
    assert len(team.rig.runs(saga_id, "undo")) == 2  # of b and of a


def test_a_plain_task_that_puts_itself_back_goes_on_in_its_attempt(team: Team) -> None:
    """With late acknowledgement the broker delivers it again at once, and it may succeed then."""
    saga_id = team.rig.begin(after_work(plain("requeue_late")), times=3)
    saga = team.rig.wait_settled(saga_id)
    assert (saga["state"], saga["steps"]["b"]["attempts"]) == ("completed", 1)
    assert len(team.rig.runs(saga_id, "requeue_late")) == 3


def test_a_plain_task_that_puts_itself_back_for_ever_ends_with_its_time_out(team: Team) -> None:
    """The delivery after it does not reach the task any more."""
    saga_id = team.rig.begin(after_work(plain("requeue_late", timeout_s=1), retry=1), times=10**6)
    ended(team.rig, saga_id, "StepTimeout")
    wait_for(partial(_is_quiet, team.rig), NOTICED_S, "the last redelivery")


def test_a_plain_task_that_puts_back_what_is_acknowledged_is_lost(team: Team) -> None:
    """Without late acknowledgement there is nothing to put back: its time-out decides."""
    saga_id = team.rig.begin(after_work(plain("requeue", timeout_s=1)))
    ended(team.rig, saga_id, "StepTimeout")
    assert failures(team.rig, saga_id) == [("lost", 1), ("lost", 2)]
    assert len(team.rig.runs(saga_id, "requeue")) == 2


def test_a_plain_task_that_retries_itself_does_so_in_one_attempt(team: Team) -> None:
    """Its message takes the saga's callbacks along; only the end is reported."""
    saga_id = team.rig.begin(after_work(plain("again")), retries=2)
    saga = team.rig.wait_settled(saga_id)
    assert (saga["state"], saga["steps"]["b"]["attempts"]) == ("completed", 1)
    assert len(team.rig.runs(saga_id, "again")) == 3


def test_a_plain_task_that_has_used_up_its_retries_is_a_failed_attempt(team: Team) -> None:
    """With the error that it gave to `retry`; a ValueError is not retried by the step's policy."""
    saga_id = team.rig.begin(after_work(plain("again")), retries=9)
    ended(team.rig, saga_id, "ValueError")
    assert failures(team.rig, saga_id) == [("failed", 1)]
    assert len(team.rig.runs(saga_id, "again")) == 3


def test_a_plain_tasks_own_retries_end_with_its_time_out(team: Team) -> None:
    """The time counts from the step's start; what comes later does not reach the task."""
    workflow = after_work(plain("again", timeout_s=1), retry=1)
    saga_id = team.rig.begin(workflow, retries=2, countdown=3)
    ended(team.rig, saga_id, "StepTimeout")
    task_id = ids.step_id(saga_id, Kind.RUN, "b", 1)
    wait_for(lambda: f"[{task_id}] ignored" in team.worker.log, NOTICED_S, "the second try")
    assert len(team.rig.runs(saga_id, "again")) == 1


# ---- lost processes ----


def test_a_child_killed_for_its_memory_costs_one_attempt(team: Team) -> None:
    """SIGKILL from outside: that step is done again, its neighbour and the worker go on."""
    near = team.rig.begin(after_work("kp_gate", queue=TEAM), gates={"1": "near"})
    other_pid = team.rig.wait_effect(near, "run", step="b").pid
    saga_id = team.rig.begin(after_work("kp_gate", queue=TEAM), gates={"1": "never"})
    os.kill(team.rig.wait_effect(saga_id, "run", step="b").pid, signal.SIGKILL)
    saga = team.rig.wait_settled(saga_id)
    assert (saga["state"], saga["steps"]["b"]["attempts"]) == ("completed", 2)
    assert [attempt for _, attempt in failures(team.rig, saga_id)] == [1]
    team.rig.open("near")
    assert team.rig.wait_settled(near)["steps"]["b"]["attempts"] == 1
    assert {effect.pid for effect in team.rig.effects(near)} == {other_pid}


def test_a_poison_step_after_the_pivot_is_parked(team: Team) -> None:
    """It kills its child at each attempt; past the point of no return that waits for a person."""
    workflow = (
        WorkflowBuilder("poison_after_pivot")
        .add_step("a", "kp_do", queue=TEAM, pivot=True)
        .add_step("b", "kp_suicide", queue=TEAM)
        .build()
    )
    saga_id = team.rig.begin(workflow)
    wait_for(lambda: team.rig.saga(saga_id)["needs_attention"], 2 * NOTICED_S, "parking")
    saga = team.rig.saga(saga_id)
    assert (saga["state"], saga["steps"]["b"]["state"]) == ("running", "parked")
    assert len(failures(team.rig, saga_id)) == saga["steps"]["b"]["attempts"] == 2


def test_a_poison_undo_is_parked(team: Team) -> None:
    """Its attempts are numbered and end; the step before it is undone all the same."""
    workflow = (
        WorkflowBuilder("poison_undo")
        .add_step("a", plain("work"), compensation=plain("undo"))
        .add_step("b", "kp_fail", queue=TEAM, compensation="kp_suicide", compensation_retry=QUICK)
        .build()
    )
    saga_id = team.rig.begin(workflow)
    wait_for(lambda: team.rig.saga(saga_id)["state"] == "failed", 2 * NOTICED_S, "the end")
    saga = team.rig.saga(saga_id)
    compensation = saga["steps"]["b"]["compensation"]
    assert (compensation["state"], compensation["attempts"]) == ("parked", 2)
    assert saga["needs_attention"]
    assert len(team.rig.runs(saga_id, "undo")) == 1


def test_a_poison_task_that_celery_redelivers_ends_with_its_time_out(team: Team) -> None:
    """``reject_on_worker_lost`` alone would begin it for ever: after its time-out it is fenced."""
    saga_id = team.rig.begin(after_work(plain("die", timeout_s=LOOP_S), retry=1))
    saga = team.rig.wait_settled(saga_id, 4 * LOOP_S)
    assert saga["state"] == "compensated"
    count = len(team.rig.runs(saga_id, "die"))
    wait_for(partial(_is_quiet, team.rig), NOTICED_S, "the last redelivery")
    assert len(team.rig.runs(saga_id, "die")) <= count + 1


def _is_quiet(rig: CeleryRig) -> bool:
    """Whether no message waits, and none is held on the server."""
    return not rig.redis.llen(TEAM) and not rig.redis.hlen("unacked")
