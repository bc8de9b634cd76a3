"""Is a user's own Celery task sent at most once, with its arguments, and its end reported?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from multiagents.core import ids
from multiagents.core.entries import Failure
from multiagents.core.ports import Verdict
from multiagents.core.states import Action, Kind, SagaState, StepState
from multiagents.engine.attempts import StoreEngine
from multiagents.engine.messages import Message
from multiagents.storage import outbox
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call, Plain
from multiagents.storage.commit import Letter
from multiagents.workflows.step import Step, TaskCall
from tests.support.one_process import SAGA, Bench

NEVER = Verdict(Failure("Declined", "-"), retryable=False)


def letter(message: Message) -> Letter:
    """The content of the broker's list."""
    shown = [message.step, list(message.args), message.kwargs, message.task_id]
    return Letter("queue", json.dumps(shown))


class Plainly(Bench):
    """A bench whose broker is the store's own server, and which runs plain tasks."""

    def __init__(self, url: str) -> None:
        super().__init__(url, letter_of=letter)
        self.engine = StoreEngine(self.coordinator, self.edge, self.clock, self.catalog)

    def take(self) -> tuple[str, list[Any], dict[str, Any], str]:
        """The next message: step, arguments, Celery id."""
        text = self.edge.client.rpop("queue")
        assert text is not None
        step, args, kwargs, task_id = json.loads(text)
        return step, args, kwargs, task_id

    def waiting(self) -> int:
        return int(self.edge.client.llen("queue"))

    def run(self, result: dict[str, Any] | None = None) -> str:
        """Run the next message as a Celery worker does: fence, task, link."""
        step, _, _, task_id = self.take()
        attempts = self.engine.fence(SAGA, task_id)
        assert attempts
        self.engine.plain_ended(SAGA, task_id, json.dumps(result or {}), attempts=attempts)
        return step


@pytest.fixture
def bench(redis_url: str) -> Iterator[Plainly]:
    found = Plainly(redis_url)
    yield found
    found.edge.close()


def plain(name: str, *after: str, **options: Any) -> Step:
    call = TaskCall(task=f"shop.{name}", timeout_s=60, **options)
    return Step(name=name, worker=call, depends_on=after)


def test_a_chain_of_plain_tasks_takes_two_requests_a_step(bench: Plainly) -> None:
    """One request is the fence; the other reports, decides, claims and sends the next."""
    bench.start(plain("a"), plain("b", "a"), plain("c", "b"))
    assert [bench.run()] == ["a"]
    calls: list[str] = []
    execute = bench.edge.execute

    def counted(effect: Any) -> Any:
        if isinstance(effect, Call | Plain):
            calls.append(effect.script if isinstance(effect, Call) else str(effect.command[0]))
        return execute(effect)

    bench.edge.execute = counted  # type: ignore[method-assign]  # it only counts
    assert bench.run() == "b"
    assert calls == ["append", "advance"]


def test_the_commit_gives_a_task_all_that_was_before_it(bench: Plainly) -> None:
    """Its one argument is the input overlaid with the results."""
    bench.start(plain("a"), plain("b", "a"), plain("c", "b"), data={"n": 1})
    for result in ({"x": 1}, {"y": 2}):
        bench.run(result)
    assert bench.take()[1:3] == ([{"n": 1, "x": 1, "y": 2}], {})


def test_a_join_gets_the_result_that_came_in_meanwhile(bench: Plainly) -> None:
    """The first branch's fence read its data before the second branch ended."""
    bench.start(plain("a"), plain("b"), plain("join", "a", "b"))
    (_, _, _, first), (_, _, _, second) = bench.take(), bench.take()
    held = {task: bench.engine.fence(SAGA, task) for task in (first, second)}
    bench.engine.plain_ended(SAGA, second, '{"b": 2}', attempts=held[second])
    bench.engine.plain_ended(SAGA, first, '{"a": 1}', attempts=held[first])
    assert bench.take()[:2] == ("join", [{"a": 1, "b": 2}])


def test_large_data_is_read_when_it_is_needed(bench: Plainly) -> None:
    """A fence does not carry megabytes, but the task gets them."""
    bench.start(plain("a"), plain("b", "a"), plain("c", "b"))
    text = "x" * 70_000
    bench.run({"text": text})
    bench.run()
    assert bench.take()[1][0]["text"] == text


def test_a_task_whose_claim_was_sent_twice_is_sent_once(bench: Plainly) -> None:
    """A lost reply of the commit or of the sending script doubles nothing (E13)."""
    bench.twice = "advance"
    bench.start(plain("a"), plain("b", "a"))
    bench.run()
    assert bench.waiting() == 1
    bench.twice = "publish"
    undone = Step(
        name="c",
        worker="a",
        compensation=TaskCall(task="shop.undo", timeout_s=60),
    )
    assert undone.compensation is not None
    bench.edge.client.flushall()
    bench.start(undone, plain("d", "c"))
    bench.succeed(bench.take_engine("c"))
    assert bench.waiting() == 1


def test_a_task_that_nobody_holds_does_not_run(bench: Plainly) -> None:
    """Its message may come after its end, or for a removed saga (E13)."""
    bench.start(plain("a"))
    *_, task_id = bench.take()
    attempts = bench.engine.fence(SAGA, task_id)
    bench.engine.plain_ended(SAGA, task_id, "{}", attempts=attempts)
    assert bench.engine.fence(SAGA, task_id) == []
    assert bench.engine.fence("never was", task_id) == []
    assert bench.ends == [SagaState.COMPLETED]


def test_a_return_counts_only_for_the_claim_that_it_held(bench: Plainly) -> None:
    """After a server lost a second a task may run twice under one id; this is logged (E5)."""
    bench.start(plain("a"))
    *_, task_id = bench.take()
    (held,) = bench.engine.fence(SAGA, task_id)
    forgotten = [replace(held, nonce="0" * len(held.nonce))]
    bench.engine.plain_ended(SAGA, task_id, '{"a": 1}', attempts=forgotten)
    failed = Verdict(Failure("Broken", "in a second that was lost"))
    bench.engine.fail_delivery(SAGA, task_id, failed, decide=True, attempts=forgotten)
    saga, _ = bench.edge.run(bench.coordinator.repository.current(SAGA))
    assert saga.steps["a"].run.state is StepState.RUNNING
    assert saga.attention == ("report of an unknown attempt of 'a'",)


@pytest.mark.parametrize("id_of", [ids.step_id, ids.derived_id], ids=["present", "earlier"])
def test_what_was_given_up_may_report_by_the_id_it_was_sent_with(bench: Plainly, id_of) -> None:
    """This includes an earlier version's task that outlasts an upgrade (E6)."""
    bench.start(plain("a"))
    *_, task_id = bench.take()
    (held,) = bench.engine.fence(SAGA, task_id)
    for _ in range(20):  # without a gap in the sweeps, which would restart its time
        bench.clock.advance(5)
        bench.sweep()
    assert bench.edge.run(bench.coordinator.repository.held(SAGA, task_id)) == []
    assert bench.edge.run(bench.coordinator.slots.owed(SAGA, id_of(SAGA, "run", "a", 1))) == [held]


def test_a_claim_whose_message_is_not_out_lets_nothing_run(bench: Plainly) -> None:
    """The claim's holder has another name until the message is sent."""
    bench.start(Step(name="a", worker="a"), plain("b", "a"))
    held = bench.take_engine("a")
    bench.lose = "publish"
    with pytest.raises(ConnectionError):
        bench.succeed(held)
    (claim,) = [value for name, value in bench.work().items() if name.startswith("c:")]
    task_id = claim.rsplit("|-", 1)[1]
    assert bench.engine.fence(SAGA, task_id) == []


def test_a_refused_argument_fails_the_step_clean(bench: Plainly) -> None:
    """An expression without a value sends nothing and needs no undo."""
    bench.start(plain("a", args=("input.missing",)))
    assert bench.waiting() == 0
    assert bench.ends == [SagaState.FAILED]


def test_an_undo_by_a_plain_task_is_sent_too(bench: Plainly) -> None:
    """Its data is read with its claim."""
    undo = TaskCall(task="shop.undo", timeout_s=60)
    first = Step(name="a", worker="a", compensation=undo)
    bench.start(first, Step(name="b", worker="a", depends_on=("a",)))
    following = bench.succeed(bench.take_engine("a"))
    assert following is not None
    bench.fail(following)
    step, _, _, task_id = bench.take()
    (attempt,) = bench.engine.fence(SAGA, task_id)
    assert (step, attempt.kind) == ("a", Kind.UNDO)


def test_a_task_that_was_given_up_before_it_was_sent_is_not_sent(bench: Plainly) -> None:
    """E13: its process stalled between claim and message, and another attempt has begun."""
    keys = bench.coordinator.repository.keys(SAGA)
    bench.edge.client.hset(keys.work, "c:run:s", "2|bb|0|second")
    late = store.Attempt(SAGA, Kind.RUN, "s", 1, "aa")
    assert not bench.edge.execute(
        outbox.plain_sent(keys, late, "1|aa|0|first", Letter("queue", "m"))
    ).standing
    assert bench.edge.client.hget(keys.work, "c:run:s") == b"2|bb|0|second"
    assert not bench.waiting()
    own = store.Attempt(SAGA, Kind.RUN, "s", 2, "bb")
    assert bench.edge.execute(
        outbox.plain_sent(keys, own, "2|bb|0|third", Letter("queue", "m"))
    ).standing
    assert bench.edge.client.hget(keys.work, "c:run:s") == b"2|bb|0|third"
    assert bench.waiting() == 1


@pytest.mark.parametrize(("command", "seen"), [("resolve", "succeeded {}"), ("skip", "skipped")])
def test_a_task_sees_whether_a_step_was_done_by_hand(
    bench: Plainly, command: str, seen: str
) -> None:
    """A skipped step has no result, a resolved one an empty result."""
    own = "steps.a.state + (has(steps.a.result) ? ' {}' : '')"
    bench.start(plain("a").model_copy(update={"pivot": True}), plain("b", "a", args=(own,)))
    *_, task_id = bench.take()
    bench.engine.fail_delivery(SAGA, task_id, NEVER, decide=True)
    bench.ask(Action(command), "a")
    step, args, *_ = bench.take()
    assert (step, args) == ("b", [seen])
