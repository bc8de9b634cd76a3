"""Does `doctor` find functions and tasks without a worker, and wrong clocks?"""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.cli.doctor import checks, workers
from multiagents.cli.doctor.workers import Known
from multiagents.engine.launches import Launch
from multiagents.workflows.builder import WorkflowBuilder, task
from tests.support.doctor import NOW

MEMBER = {"queues": ["io", "llm"], "workers": {"charge": "io"}, "at_ms": NOW}


@pytest.mark.parametrize(("skew_ms", "status"), [(30, "ok"), (-1999, "ok"), (5000, "warn")])
def test_a_wrong_clock_is_found(skew_ms: int, status: str) -> None:
    """The doctor compares this host's clock with the server's."""
    assert checks.clocks(skew_ms, {}, NOW).status == status


def test_a_workers_wrong_clock_is_found() -> None:
    """A worker whose last sign of life lies in the future has a wrong clock."""
    ahead: dict[str, Any] = {**MEMBER, "at_ms": NOW + 60_000}
    found = checks.clocks(0, {"w1": MEMBER, "w2": ahead}, NOW)
    assert found.status == "warn"
    assert "w2" in found.message
    assert "w1" not in found.message


def test_queues_of_steps_and_plain_tasks_count() -> None:
    """The check covers a step's own queue and a task's queue."""
    workflow = (
        WorkflowBuilder("mixed")
        .add_step("a", "charge", queue="slow")
        .add_step("b", task("shop.mail", queue="mail"))
        .build()
    )
    found = workers.queues(Known({"w": MEMBER}, [workflow]))
    assert found.status == "fail"
    assert "mail, slow" in found.message


def test_a_worker_function_that_nobody_has_is_found() -> None:
    """The finding names a function that was published and that no worker has now."""
    workflow = WorkflowBuilder("old").add_step("a", "gone").build()
    found = workers.worker_functions(Known({"w": MEMBER}, [workflow]))
    assert "gone (old)" in found.message


def flow(name: str = "order", **options: Any) -> Any:
    """A step of ``charge``."""
    return WorkflowBuilder(name).add_step("a", "charge", **options).build()


def test_a_function_must_be_where_its_steps_are_sent() -> None:
    """A worker on another queue does not count as having the function."""
    known = Known(
        {"one": {**MEMBER, "workers": {}}, "two": {**MEMBER, "queues": ["slow"]}}, [flow()]
    )
    found = workers.worker_functions(known)
    assert found.status == "fail"
    assert "no worker that consumes 'io' has charge, which two has" in found.message
    assert "celery -A multiagents worker -Q io" in found.fix


def test_a_worker_that_lacks_a_function_of_its_queue_is_named() -> None:
    """Other workers run such steps, so the finding is a warning with its remedy."""
    known = Known({"one": {**MEMBER, "workers": {}}, "two": MEMBER}, [flow()])
    found = workers.worker_functions(known)
    assert found.status == "warn"
    assert "one consumes 'io' without charge" in found.message
    assert workers.lacking_of(known) == {"one": {"io": ["charge"]}}


def test_a_worker_that_is_stopping_does_not_count_as_one_that_takes_work() -> None:
    """A worker in warm shutdown ends its tasks and takes no new ones."""
    gone = {"two": {**MEMBER, "state": "stopping", "at_work": 2}}
    found = workers.workers(Known({}, stopping=gone))
    assert found.status == "fail"
    assert found.message == (
        "no worker claims work: sagas do not move; two is stopping, still at 2 tasks"
    )
    assert workers.queues(Known({}, [flow()], stopping=gone)).status == "warn"
    found = workers.workers(Known({"one": MEMBER}, stopping=gone))
    assert (found.status, found.message.partition("; ")[2]) == ("ok", "stopping: two")


def test_a_worker_with_no_functions_is_named() -> None:
    """The cause may be a missing MULTIAGENTS_IMPORTS; a team's app may have plain tasks alone."""
    shop = Launch("multiagents", ("shop",), ("io",), ("charge",))
    empty = {**MEMBER, "workers": {}}
    found = workers.workers(Known({"one": MEMBER, "two": empty}, launches=[shop]))
    assert found.status == "warn"
    assert found.message.startswith("two without any worker function")
    assert "MULTIAGENTS_IMPORTS=shop celery -A multiagents worker -Q io" in found.fix
    assert workers.workers(Known({"two": {**empty, "app": "proj"}})).status == "ok"


PLAIN = (
    WorkflowBuilder("plain")
    .add_step("pay", task("shop.pay"), compensation=task("shop.refnud"))
    .add_step("post", task("post.send"))
    .build()
)


def test_a_plain_task_that_no_running_worker_has_is_found() -> None:
    """The check reads the launches of running workers and suggests the nearest name."""
    shop = {**MEMBER, "app": "shop", "imports": []}
    post = {**shop, "app": "post", "queues": ["post"]}
    launch = Launch("shop", (), ("io", "llm"), tasks=("shop.pay", "shop.refund"))
    known = Known({"one": shop}, [PLAIN], [launch])
    found = workers.plain_tasks(known)
    assert found.status == "warn"
    assert found.message == (
        "no running worker has registered post.send (plain),"
        " shop.refnud (plain; did you mean 'shop.refund'?)"
    )
    more = Launch("post", (), ("post",), tasks=("post.send", "shop.refnud"))
    known = Known({"one": shop, "two": post}, [PLAIN], [launch, more])
    assert workers.plain_tasks(known).message == "none is missing"


def test_of_a_worker_that_does_not_tell_its_tasks_nothing_is_said() -> None:
    """A worker of an earlier version or of a program may have all tasks."""
    shop = {**MEMBER, "app": "shop", "imports": []}
    for launches in ([], [Launch("shop", (), ("io", "llm"))]):
        found = workers.plain_tasks(Known({"one": shop}, [PLAIN], launches))
        assert (found.status, found.message) == (
            "ok",
            "unknown: one does not publish its plain tasks",
        )
    found = workers.plain_tasks(Known({"one": MEMBER}, [flow()]))
    assert found.message == "no published workflow has one"


def test_functions_of_different_queues_are_not_missed() -> None:
    """A worker needs only its own queue's functions; an undo goes to its own queue."""
    fleet = {
        "one": {**MEMBER, "queues": ["io"]},
        "two": {**MEMBER, "queues": ["slow"], "workers": {"undo": "slow"}},
    }
    found = workers.worker_functions(Known(fleet, [flow(compensation="undo")]))
    assert (found.status, found.message) == ("ok", "none is missing")
