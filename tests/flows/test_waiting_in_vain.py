"""Does a waiting caller learn that no worker can move its saga?"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from multiagents import WorkflowBuilder, worker
from multiagents.cli.commands import watch
from multiagents.core.ports import Assignment
from multiagents.storage import keys as k
from multiagents.storage.keys import Shard
from multiagents.workflows.workflow import Workflow
from tests.support.command_line import cli
from tests.support.office import Office

START = "MULTIAGENTS_IMPORTS=YOUR_MODULE celery -A multiagents worker"
IN_VAIN = f"nothing moves it, because no worker runs: start one with `{START}`"
LEASE_MS = 15_000


@worker("vain.do")
def do(context: Any) -> dict[str, Any]:
    return {}


def one() -> Workflow:
    return WorkflowBuilder("vain-one").add_step("ship", "vain.do").build()


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> dict[int, Callable[[], None]]:
    """One action after so many seconds of the command line's wait."""
    found: dict[int, Callable[[], None]] = {}
    waited = [0.0]

    def sleep(seconds: float) -> None:
        waited[0] += seconds
        for after in [each for each in found if each <= waited[0]]:
            found.pop(after)()

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: waited[0])
    monkeypatch.setattr(watch, "time", clock)
    return found


def in_vain(saga_id: str) -> list[str]:
    return [f"saga {saga_id}: {IN_VAIN}; see", f"  multiagents explain {saga_id}"]


def test_watch_says_once_that_no_worker_runs_and_that_it_can_move_again(
    office: Office, acts: dict[int, Callable[[], None]]
) -> None:
    """This includes a killed worker's step, but no step that a worker may be running."""
    saga_id = office.start(one())
    held: list[Assignment] = []
    acts[20] = lambda: held.append(office.claim(saga_id, "ship"))
    acts[40] = lambda: end_lease(office, held[0])
    acts[60] = lambda: office.worker_runs("io", functions=("vain.do",))
    acts[80] = lambda: office.runtime.host.engine.succeed(held[0], "{}", go_on=False)
    done = cli("watch", saga_id, url=office.url)
    assert (done.code, acts) == (0, {})
    again = f"saga {saga_id} can move again"
    assert done.err.splitlines() == [*in_vain(saga_id), again, *in_vain(saga_id), again]


def test_start_that_waits_does_not_say_twice_that_no_worker_runs(
    office: Office, acts: dict[int, Callable[[], None]]
) -> None:
    """It says so before it waits."""
    workflow = one().register(replace=True)
    acts[20] = lambda: office.succeed(saga_id(), "ship")

    def saga_id() -> str:
        (row,) = office.runtime.call("list", workflow="vain-one", limit=1)
        return str(row["transaction_id"])

    done = cli("start", workflow.name, "--wait", "--json", url=office.url)
    assert done.code == 0
    assert done.err.splitlines() == [IN_VAIN, f"saga {saga_id()}"]


# ---- leases ----


def set_lease(office: Office, held: Assignment, at_ms: int) -> None:
    member = k.due_lease(held.saga_id, held.ref, held.nonce)
    with redis.Redis.from_url(office.url) as client:
        assert client.zadd(Shard().due, {member: at_ms}, xx=True, ch=True) == 1


def end_lease(office: Office, held: Assignment) -> None:
    """Let the lease expire without a sweep."""
    set_lease(office, held, office.runtime.clock.now_ms() - 1000)


def swept(office: Office, ago_ms: int) -> None:
    """Set the last sweep that long ago."""
    with redis.Redis.from_url(office.url) as client:
        at_ms = office.runtime.clock.now_ms() - ago_ms
        client.hset(Shard().tick, mapping={"at": at_ms, "grace": 0})


def test_a_lease_that_ran_out_with_no_worker_gives_the_command_that_starts_one(
    office: Office,
) -> None:
    """The command has its own line; callers waiting for the result get it, too."""
    saga_id = office.start(one())
    held = office.claim(saga_id, "ship")
    assert office.reason(saga_id, "running")["commands"] == []
    end_lease(office, held)
    reason = office.reason(saga_id, "running")
    # An earlier test may have run a worker in this process and named it so.
    assert re.match(r"Step 'ship' \(attempt 1\) began (in a worker|on \S+) ", reason["text"])
    assert ", and no worker runs. The first one that starts counts the attempt" in reason["text"]
    assert reason["commands"] == [START]
    assert office.explain(saga_id)["text"].endswith(f"\n  {START}")
    assert office.runtime.outcomes.stranded(saga_id) == IN_VAIN
    office.worker_runs("io", functions=("vain.do",))
    assert office.reason(saga_id, "running")["commands"] == []
    assert office.runtime.outcomes.stranded(saga_id) == ""


def test_a_try_that_no_worker_will_begin_gives_that_command_too(office: Office) -> None:
    """The retry is due, and no worker sweeps."""
    saga_id = office.start(one())
    office.fail(office.claim(saga_id, "ship"), retryable=True)
    assert office.reason(saga_id, "retrying")["commands"] == [START]
    assert office.runtime.outcomes.stranded(saga_id) == IN_VAIN


def test_after_a_gap_in_the_sweeps_each_lease_has_one_more_term_and_explain_says_so(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`explain` does not claim that a lost worker renews its lease."""
    monkeypatch.setattr(office.runtime.host.coordinator.claims, "hostname", "gone@host")
    saga_id = office.start(one())
    held = office.claim(saga_id, "ship")
    office.worker_runs("io", functions=("vain.do",))
    end_lease(office, held)
    swept(office, ago_ms=100)
    assert office.reason(saga_id, "running")["text"].endswith("a worker counts it as lost.")
    swept(office, ago_ms=LEASE_MS)
    text = office.reason(saga_id, "running")["text"]
    assert text.endswith(
        "a worker counts it as lost, after one more term, because no worker swept for a while."
    )
    assert office.runtime.edge.run(office.runtime.host.sweeper.due(Shard())) == ()
    text = office.reason(saga_id, "running")["text"]
    assert "its lease lasts until" in text
    assert text.endswith(
        ", one more term, because no worker swept for a while; then a worker counts it as lost."
    )
    assert "renewed" not in text
