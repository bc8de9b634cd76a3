"""Does `explain` say only what is known of a plain task, which is claimed when sent?"""

from __future__ import annotations

from typing import Any

import redis

from multiagents import WorkflowBuilder, task, worker
from multiagents.core.fields import claim_field
from multiagents.core.states import Kind
from multiagents.engine import launches
from multiagents.engine.catalog import Catalog
from multiagents.engine.launches import Launch
from multiagents.engine.plain_tasks import NOT_SENT
from multiagents.transport.direct_publish import list_of
from multiagents.workflows.workflow import Workflow
from tests.support.command_line import cli
from tests.support.office import Office
from tests.support.processes import wait_for


@worker("explain_plain.do")
def do(context: Any) -> dict[str, Any]:
    return {}


def paying(**options: Any) -> Workflow:
    """A step that runs the team's own Celery task."""
    pay = task("team.pay", **{"queue": "billing", "timeout_s": 60, **options})
    return WorkflowBuilder("explain-pay").add_step("pay", pay).build()


def test_a_plain_task_that_waits_is_not_said_to_run(office: Office) -> None:
    """The text has the message's time and queue, the queue's length and the timeout."""
    saga_id = office.start(paying())
    reason = office.reason(saga_id, "unreported")
    text = reason["text"]
    assert text.startswith("Step 'pay' (attempt 1) is the Celery task 'team.pay'. It was sent ")
    assert "ago to queue 'billing' and has not reported; whether it has begun is unknown" in text
    assert "1 message waits there, perhaps its own." in text
    assert "If it does not report, its timeout decides, at" in text
    assert "running for" not in office.explain(saga_id)["text"]
    assert (reason["step"], reason["kind"], reason["worker_function"]) == (
        "pay",
        "step",
        "team.pay",
    )
    assert (reason["queue"], reason["waiting"], reason["consumers"]) == ("billing", 1, [])
    assert reason["sent_at"] < reason["at"]
    office.start(paying())
    assert "2 messages wait there, perhaps its own among them" in office.explain(saga_id)["text"]


def test_of_a_plain_tasks_queue_only_what_is_known_is_said(office: Office) -> None:
    """Workers without `attach` do not announce themselves, and may consume the queue."""
    office.worker_runs("io")
    saga_id = office.start(paying())
    unseen = office.reason(saga_id, "unreported")
    assert (
        "No running worker that hosts sagas consumes that queue; whether another" in unseen["text"]
    )
    assert "no worker consumes" not in unseen["text"]
    assert unseen["commands"] == ["celery -A YOUR_APP worker -Q billing"]
    office.worker_runs("billing")
    with redis.Redis.from_url(office.url) as client:
        client.delete("billing")
    taken = office.reason(saga_id, "unreported")
    assert "consumed by celery@one, with 2 slots" in taken["text"]
    assert "the queue is empty, so the message is lost, or a worker has it" in taken["text"]
    assert (taken["waiting"], taken["consumers"]) == (0, ["celery@one"])


def test_a_plain_task_that_no_worker_takes_does_not_go_on(office: Office) -> None:
    """Waiting callers read what is missing and how to start it; workers may be unseen."""
    saga_id = office.start(paying())
    start = "celery -A YOUR_APP worker -Q billing"
    reason = office.reason(saga_id, "unreported")
    assert "No worker that hosts sagas is running, so nothing moves it." in reason["text"]
    assert reason["commands"] == [start]
    why = "no worker that hosts sagas consumes queue 'billing', where its message waits"
    stranded = f"nothing moves it, because {why}: start one with `{start}`"
    assert office.runtime.edge.run(office.runtime.host.service.stranded(saga_id)) == stranded
    waited = cli("start", "explain-pay", "--wait", "--timeout", "0", url=office.url)
    assert "it goes on" not in waited.err
    office.worker_runs("billing")
    assert office.reason(saga_id, "unreported")["commands"] == []
    assert office.runtime.edge.run(office.runtime.host.service.stranded(saga_id)) == ""


def test_a_plain_task_of_a_known_app_says_how_that_is_started(office: Office) -> None:
    """The command repeats an earlier launch, for the queues of the app's routing."""
    launch = Launch("shop", (), ("billing", "celery"), (), at_ms=1)
    office.runtime.edge.run(launches.remember(launch))
    routed = office.reason(office.start(paying(queue=None)), "unreported")
    assert routed["commands"] == ["celery -A shop worker -Q billing,celery"]
    assert "No worker that hosts sagas is running" in routed["text"]
    office.worker_runs("io")
    waiting = office.reason(office.start(paying()), "unreported")
    assert waiting["commands"] == ["celery -A shop worker -Q billing"]


def test_a_plain_tasks_own_priority_hides_no_message(office: Office) -> None:
    """The look covers the priority list that the app's own priority selects."""
    saga_id = office.start(paying())
    with redis.Redis.from_url(office.url) as client:
        client.rename("billing", list_of("billing", 9))
    assert office.reason(saga_id, "unreported")["waiting"] == 1


def test_a_plain_task_that_its_app_routes_has_no_queue_that_is_known(office: Office) -> None:
    """Neither task nor step names a queue; a step's queue also holds for its undo."""
    reason = office.reason(office.start(paying(queue=None)), "unreported")
    assert "sent" in reason["text"]
    assert "to the queue that the routes of its app give it" in reason["text"]
    assert (reason["queue"], reason["waiting"], reason["consumers"]) == (None, None, [])
    undone = (
        WorkflowBuilder("explain-repay")
        .add_step("pay", do, queue="shop", compensation=task("team.repay", timeout_s=60))
        .add_step("send", do)
        .build()
    )
    saga_id = office.start(undone)
    office.succeed(saga_id, "pay")
    office.fail(office.claim(saga_id, "send"))
    repaid = office.reason(saga_id, "unreported")
    assert repaid["text"].startswith(
        "The undo of 'pay' (attempt 1) is the Celery task 'team.repay'"
    )
    assert (repaid["queue"], repaid["kind"]) == ("shop", "undo")


def test_a_plain_task_that_was_perhaps_not_sent_says_so(office: Office) -> None:
    """Its claimer may have died before sending, and the message is never resent."""
    saga_id = office.start(paying())
    work = office.runtime.host.coordinator.repository.keys(saga_id).work
    with redis.Redis.from_url(office.url, decode_responses=True) as client:
        claim = str(client.hget(work, claim_field(Kind.RUN, "pay")))
        head, _, delivery = claim.rpartition("|")
        client.hset(work, claim_field(Kind.RUN, "pay"), f"{head}|{NOT_SENT}{delivery}")
    reason = office.reason(saga_id, "not_sent")
    assert "Its message has perhaps not been sent, and is not sent again." in reason["text"]
    assert "its timeout decides, at" in reason["text"]
    assert reason["sent_at"] is None


def test_a_plain_task_whose_time_is_over_waits_for_a_sweep(office: Office) -> None:
    """Only a worker's sweep acts on the timeout."""
    saga_id = office.start(paying(timeout_s=0.05))
    wait_for(lambda: "was over at" in office.explain(saga_id)["text"], 5.0, "the time-out")
    assert "no worker runs to notice it" in office.reason(saga_id, "unreported")["text"]


def test_the_command_tells_of_a_plain_task(office: Office) -> None:
    """Text and JSON give the same facts."""
    saga_id = office.start(paying())
    told = cli("explain", saga_id, url=office.url).out
    assert "is the Celery task 'team.pay'. It was sent" in told
    assert "its timeout decides" in told
    (reason,) = cli("explain", saga_id, "--json", url=office.url).json["reasons"]
    assert (reason["code"], reason["queue"], reason["waiting"]) == ("unreported", "billing", 1)


def test_the_queue_to_which_an_app_routes_a_plain_task_is_named(office: Office) -> None:
    """A worker with the task published its queue; if none consumes it, the saga does not move."""
    run, catalog = office.runtime.edge.run, Catalog(office.runtime.clock)
    routes = {"team.pay": "stay"}
    launch = Launch("shop", (), ("io", "other"), (), 1, ("team.pay",), routes)
    run(catalog.publish("celery@shop", ["io", "other"], [], launch=launch, routes=routes))
    saga_id = office.start(paying(queue=None))
    with redis.Redis.from_url(office.url) as client:  # as its app sends it
        client.lpush("stay", "{}")
    reason = office.reason(saga_id, "unreported")
    assert "ago to queue 'stay' and has not reported" in reason["text"]
    assert (reason["queue"], reason["waiting"]) == ("stay", 1)
    assert reason["commands"] == ["celery -A shop worker -Q stay"]
    why = "no worker that hosts sagas consumes queue 'stay', where its message waits"
    assert why in run(office.runtime.host.service.stranded(saga_id))
    run(catalog.withdraw("celery@shop"))
    assert office.reason(saga_id, "unreported")["queue"] == "stay"


def test_the_launch_whose_app_has_a_plain_task_is_repeated(office: Office) -> None:
    """This includes a launch of the package's own app, with its imports."""
    for app, imports, tasks in (("other", (), ()), ("multiagents", ("billing",), ("team.pay",))):
        launch = Launch(app, imports, ("io",), (), 1, tasks)
        office.runtime.edge.run(launches.remember(launch))
    reason = office.reason(office.start(paying(queue=None)), "unreported")
    assert reason["commands"] == ["MULTIAGENTS_IMPORTS=billing celery -A multiagents worker -Q io"]


def test_a_plain_task_may_wait_in_a_worker_whose_slots_are_busy(office: Office) -> None:
    """A prefetched or running message is not lost."""
    catalog, run = Catalog(office.runtime.clock), office.runtime.edge.run
    saga_id = office.start(paying())
    with redis.Redis.from_url(office.url) as client:
        client.delete("billing")
    for busy, said in ((1, "the only slot of celery@pay is busy, so it is at work"), (0, "lost")):
        run(catalog.publish("celery@pay", ["billing"], [], slots=1, busy=busy))
        assert said in office.reason(saga_id, "unreported")["text"]
    run(catalog.withdraw("celery@pay"))
