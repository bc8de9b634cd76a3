"""Is each consequence of a saga's end delivered on its own, and parked if it cannot be?"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from celery import Celery, chain, chord

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Failure
from multiagents.core.exceptions import NotAllowed
from multiagents.core.ports import Verdict
from multiagents.core.settings import Settings
from multiagents.core.states import FailureEffect, Kind
from multiagents.hosting.app import defaults
from multiagents.hosting.runtime import Runtime, attach
from multiagents.storage.keys import SagaKeys, due_outbox, due_purge
from multiagents.worker_sdk.decorators import worker
from multiagents.workflows.builder import WorkflowBuilder
from tests.support.one_process import SHARD

CALLED: list[str] = []
BROKER: list[str] = []
"""Where the broker is for the next messages: "there" or "away"."""


@worker("ue.pay", retry=1)
def pay(context: Any) -> dict[str, Any]:
    return {}


flow = WorkflowBuilder("ue").add_step("pay", "ue.pay").build()


def taking(result: Any) -> None:
    """Takes a link's argument."""


def takes_nothing() -> None:
    """Cannot be a link, which gets the result as argument."""


def raises(request: Any, error: Any, traceback: Any) -> None:
    """An errback that Celery calls in the delivering process."""
    CALLED.append("raises")
    raise OSError("its own file is away")


def notes(request: Any, error: Any, traceback: Any) -> None:
    CALLED.append("notes")


def router(name: str, *_: Any, **__: Any) -> dict[str, str] | None:
    if name == "ue.taking" and BROKER and BROKER.pop(0) == "away":
        raise ConnectionError("the broker has gone")
    if name == "ue.lost":
        raise KeyError(name)
    return None


class Team:
    """An app with links of all kinds, and one running saga."""

    def __init__(self, url: str, **conf: Any) -> None:
        settings = Settings(redis_url=url)
        self.app = Celery("ue", set_as_current=False)
        self.app.conf.update({**defaults(settings), "task_default_queue": "links"})
        self.app.conf.update({"task_routes": [router], **conf})
        for function in (taking, takes_nothing, raises, notes):
            self.app.task(function, name=f"ue.{function.__name__}", shared=False)
        self.app.task(taking, name="ue.lost", shared=False)
        self.app.task(taking, name="ue.yam", shared=False, serializer="yam")
        self.runtime: Runtime = attach(self.app, settings)

    def sign(self, name: str, **options: Any) -> Any:
        return self.app.signature(f"ue.{name}", **options)

    def run(self, *, fails: bool = False, canvas: Any = None, **options: Any) -> Any:
        """Start a saga, or a canvas with one, and end it; returns the caller's result."""
        start = self.runtime.start_saga
        result = canvas.apply_async() if canvas else start.apply_async((flow, {}), **options)
        for row in self.runtime.call("list", state="running"):
            self._end(row["transaction_id"], fails=fails)
        return result

    def _end(self, saga_id: str, *, fails: bool) -> None:
        engine = self.runtime.host.engine
        held = engine.claim(saga_id, AttemptRef(Kind.RUN, "pay", 1), delivery="d", queue="io")
        if fails:
            verdict = Verdict(Failure("Boom", "boom"), FailureEffect.CLEAN, retryable=False)
            engine.fail(held, verdict, go_on=False)
        else:
            engine.succeed(held, "{}", go_on=False)

    def sweep(self) -> None:
        """Deliver the outstanding ends again."""
        for row in self.runtime.call("list"):
            keys = SagaKeys(row["transaction_id"])
            if self.store.hexists(keys.work, "o:end"):
                coordinator = self.runtime.host.coordinator
                self.runtime.edge.run(coordinator.ends.deliver_again(keys, flow))

    @property
    def store(self) -> Any:
        return self.runtime.edge.client

    @property
    def sent(self) -> Counter[str]:
        """The number of messages of each link in its queue."""
        texts = self.store.lrange("links", 0, -1)
        return Counter(json.loads(text)["headers"]["task"].removeprefix("ue.") for text in texts)

    def untold(self, saga_id: str) -> list[str]:
        found: list[str] = self.runtime.call("get", saga_id)["attention"]
        return found


@pytest.fixture
def team(redis_url: str) -> Team:
    CALLED.clear()
    BROKER.clear()
    return Team(redis_url)


@pytest.mark.parametrize(
    ("link", "why"),
    [
        (
            "takes_nothing",
            "TypeError: takes_nothing() takes 0 positional arguments but 1 was given",
        ),
        ("lost", "KeyError: 'ue.lost'"),
        ("yam", "SerializerNotInstalled: No encoder installed for yam"),
    ],
)
def test_a_link_that_cannot_be_sent_keeps_no_other_from_being_told(team, link, why):
    """Other links are called once; the failed one is parked instead of retried every 2 s."""
    links = [team.sign("taking"), team.sign(link), team.sign("taking")]
    result = team.run(link=links)
    team.sweep()
    assert result.get(timeout=5) == {}
    assert team.sent == {"taking": 2}
    (note,) = team.untold(result.id)
    assert note.startswith(f"link 2 (ue.{link}) of {result.id} cannot be told: {why}")
    assert team.store.hgetall(SagaKeys(result.id).work) == {}


def test_an_errback_that_fails_keeps_no_other_from_being_called(team):
    """An errback that runs here is called once, whatever it raises."""
    errbacks = [team.sign(name) for name in ("raises", "notes", "lost", "taking")]
    result = team.run(fails=True, link_error=errbacks)
    team.sweep()
    assert CALLED == ["raises", "notes"]
    assert team.sent == {"taking": 1}
    told = [note.partition(" of ")[0] for note in team.untold(result.id)]
    assert told == ["errback 1 (ue.raises)", "errback 3 (ue.lost)"]


def test_a_chain_that_cannot_go_on_fails_those_who_wait_for_its_end(team):
    """As in Celery, they get the next task's error, and its errbacks are called."""
    saga = team.runtime.start_saga.s(flow, {})
    tail = (team.sign("takes_nothing"), team.sign("taking"))
    result = team.run(canvas=chain(saga, *tail).on_error(team.sign("notes")))
    with pytest.raises(TypeError, match="takes 0 positional arguments"):
        result.get(timeout=5)
    assert result.parent.parent.get(timeout=5) == {}
    assert CALLED == ["notes"]
    assert team.untold(result.parent.parent.id)[0].startswith("chain (ue.takes_nothing) of")


@pytest.mark.parametrize("body", ["taking", "takes_nothing"])
def test_a_saga_is_told_once_as_a_part_of_a_chord(team, body):
    """Another target's refusal changes nothing; an unsent body gets the chord's error."""
    parts = [team.runtime.start_saga.s(flow, {}).set(link=team.sign("lost")) for _ in range(2)]
    result = team.run(canvas=chord(parts, team.sign(body)))
    team.sweep()
    assert team.sent == ({"taking": 1} if body == "taking" else {})
    if body == "takes_nothing":
        with pytest.raises(Exception, match="takes 0 positional arguments"):
            result.get(timeout=5)
    assert len(team.runtime.call("list")) == 2
    assert all(len(team.untold(row["transaction_id"])) == 1 for row in team.runtime.call("list"))


def test_what_was_refused_is_told_after_a_retry(team):
    """After the router's repair only the refused one is sent."""
    result = team.run(link=[team.sign("taking"), team.sign("lost")])
    team.app.conf.task_routes = []
    team.app.amqp.flush_routes()
    team.app.amqp.router = team.app.amqp.Router()
    reason = next(
        r for r in team.runtime.call("explain", result.id)["reasons"] if r["code"] == "untold"
    )
    assert reason["commands"][0] == f"multiagents dead-letters retry {result.id}"
    team.runtime.call("retry", result.id)
    assert team.store.zscore(SHARD.due, due_outbox(result.id, "o:end"))
    assert team.untold(result.id) == []
    team.sweep()
    assert team.sent == {"taking": 1, "lost": 1}
    assert team.untold(result.id) == []
    assert team.store.hgetall(SagaKeys(result.id).work) == {}
    with pytest.raises(NotAllowed, match="has no dead letter"):
        team.runtime.call("retry", result.id)


def test_a_retry_that_is_refused_again_is_parked_again(team):
    """Nothing else is delivered again."""
    result = team.run(link=[team.sign("taking"), team.sign("lost")])
    for _ in range(2):
        team.runtime.call("retry", result.id)
        team.sweep()
    assert (team.sent, len(team.untold(result.id))) == ({"taking": 1}, 1)
    events = [event["type"] for event in team.runtime.call("history", result.id)]
    assert events.count("end_unroutable") == 3


def test_a_saga_of_whose_end_something_is_parked_is_kept_until_a_person_has_settled_it(team):
    """Its retention begins then, as with every dead letter (rule 13)."""
    result = team.run(link=team.sign("lost"))
    member = due_purge(result.id)
    assert team.store.zscore(SHARD.due, member) is None
    assert team.store.zscore(SHARD.attention, result.id)
    team.runtime.call("resolve", result.id, reason="sent by hand")
    assert team.store.zscore(SHARD.due, member)
    assert team.store.zscore(SHARD.attention, result.id) is None
    assert team.sent == {}


def test_a_broker_that_is_away_refuses_nothing(team):
    """After the outage earlier messages are not repeated."""
    BROKER[:] = ["there", "away"]
    result = team.run(link=[team.sign("taking"), team.sign("taking"), team.sign("lost")])
    assert (team.sent, team.untold(result.id)) == ({"taking": 1}, [])
    team.sweep()
    assert team.sent == {"taking": 2}
    assert len(team.untold(result.id)) == 1
