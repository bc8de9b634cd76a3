"""Do a fan-out's branches reach the free workers, and only those?"""

from __future__ import annotations

import pytest

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Failure
from multiagents.core.ports import Assignment, Verdict, WorkerInfo
from multiagents.core.states import Action, Kind, SagaState
from multiagents.engine.attempts import StoreEngine
from multiagents.engine.messages import Message
from multiagents.storage.commit import Letter
from multiagents.workflows.step import Step
from tests.support.one_process import SAGA, Bench


def branches(count: int, **options: object) -> list[Step]:
    """That many branches and a join."""
    names = [f"p{number}" for number in range(count)]
    steps = [Step(name=name, worker="a", **options) for name in names]  # type: ignore[arg-type]
    return [*steps, Step(name="join", worker="a", depends_on=tuple(names))]


def walk(bench: Bench, held: Assignment | None) -> list[str]:
    """Continue with the next step as long as there is one."""
    done = []
    while held is not None:
        done.append(held.step)
        held = bench.succeed(held)
    return done


def test_only_as_many_messages_are_sent_as_there_are_slots(bench: Bench) -> None:
    """Other branches wait in the outbox, and each finished branch continues with one of them."""
    bench.announce(2)
    bench.start(*branches(6))
    assert [message.step for message in bench.sent] == ["p0", "p1"]
    first, second = bench.claim(), bench.claim()
    assert walk(bench, first) == ["p0", "p5", "p4", "p3", "p2"]
    assert walk(bench, second) == ["p1", "join"]
    assert bench.ends == [SagaState.COMPLETED]
    assert bench.sent == []


def test_a_branch_taken_over_has_all_that_a_message_would_have_brought(bench: Bench) -> None:
    """It has input, results, a lease and a log entry, and the outbox is empty."""
    bench.announce(1)
    before = Step(name="before", worker="a")
    after = [Step(name=f"q{n}", worker="a", depends_on=("before",)) for n in range(3)]
    bench.start(before, *after)
    held = bench.succeed(bench.claim())
    assert held is not None
    taken = bench.succeed(held)
    assert taken is not None
    assert (taken.step, taken.results, taken.attempt) == ("q2", {"before": "{}"}, 1)
    history = [entry.step for entry in bench.log() if entry.type == "claimed"]
    assert history == ["before", "q0", "q2"]
    assert sorted(bench.work()) == ["c:run:q2", "o:run:q1:1"]


def test_without_known_workers_everything_is_sent(bench: Bench) -> None:
    """The number of slots is unknown then."""
    bench.start(*branches(6))
    assert len(bench.sent) == 6


def test_nothing_is_sent_twice_where_everything_was_sent(bench: Bench) -> None:
    """Without known workers nothing is withheld, so there is no slot to pass on."""
    bench.start(*branches(3))
    bench.succeed(bench.claim(), allowed=False)
    assert [message.step for message in bench.sent] == ["p1", "p2"]


def test_a_process_that_may_not_go_on_hands_its_place_on(bench: Bench) -> None:
    """At the end of its slice it publishes a withheld message, so the number at work stays."""
    bench.announce(1)
    bench.start(*branches(4))
    done = []
    for _ in range(4):
        (message,) = bench.sent
        done.append(message.step)
        assert bench.succeed(bench.claim(), allowed=False) is None
    assert sorted(done) == ["p0", "p1", "p2", "p3"]
    assert [message.step for message in bench.sent] == ["join"]


def test_a_failed_branch_hands_its_place_on(bench: Bench) -> None:
    """Its slot runs another branch while it waits for its retry."""
    bench.announce(1)
    bench.start(*branches(3))
    following = bench.fail(bench.claim(), retryable=True, go_on=True)
    assert following is not None
    assert following.step == "p2"


def test_branches_of_another_queue_are_left_to_its_workers(bench: Bench) -> None:
    """Branches whose functions this process lacks are left, too."""
    bench.announce(1)
    bench.catalog.add_local(WorkerInfo("b", queue="llm"))
    others = [Step(name=f"b{n}", worker="b") for n in range(2)]
    foreign = Step(name="foreign", worker="elsewhere")
    bench.start(Step(name="p0", worker="a"), *others, foreign)
    assert bench.succeed(bench.claim()) is None


def test_nothing_is_taken_over_of_a_paused_saga(bench: Bench) -> None:
    """Running branches may end, and none begins (E19)."""
    bench.announce(1)
    bench.start(*branches(4))
    held = bench.claim()
    bench.ask(Action.PAUSE)
    assert bench.succeed(held) is None
    bench.ask(Action.RESUME)
    assert len(bench.sent) == 1
    assert len(walk(bench, bench.claim())) == 4


def test_what_is_held_back_is_sent_when_nobody_comes_for_it(bench: Bench) -> None:
    """If the process with the only message dies, a sweep finds the queue empty after a lease."""
    bench.announce(2)
    bench.start(*branches(5))
    bench.sent.clear()
    bench.clock.advance(bench.settings.lease_s + 1)
    bench.sweep()
    assert sorted(message.step for message in bench.sent) == [f"p{n}" for n in range(5)]


def claims(bench: Bench, message: Message, delivery: str = "d2") -> Assignment | None:
    """Another process claims a message."""
    claim = bench.coordinator.slots.claim(SAGA, message.ref, delivery=delivery, queue="io")
    return bench.edge.run(claim)


def test_a_message_for_a_branch_that_was_taken_over_changes_nothing(bench: Bench) -> None:
    """Its command has left the outbox (E3), and no other one waits."""
    bench.announce(2)
    bench.start(*branches(2))
    first, second = bench.sent
    held = bench.claim()
    taken = bench.succeed(held)
    assert taken is not None
    assert taken.step == second.step
    assert claims(bench, second) is None
    assert first.step == held.step


def test_a_message_for_a_branch_that_was_taken_over_takes_another(bench: Bench) -> None:
    """Otherwise its slot would be lost, and a wide fan-out would end with one."""
    bench.announce(1)
    bench.start(*branches(4))
    assert bench.succeed(bench.claim(), allowed=False) is None
    (handed_on,) = bench.sent
    bench.announce(2)
    first = claims(bench, handed_on, delivery="another's")
    assert first is not None
    second = claims(bench, handed_on)
    assert second is not None
    done = walk(bench, second)
    assert len(done) == 2
    assert claims(bench, handed_on) is None
    assert sorted([*done, *walk(bench, first)]) == ["join", "p1", "p2", "p3"]


def test_a_message_that_was_sent_again_takes_nothing_beside_the_first(bench: Bench) -> None:
    """Both messages have one Celery id, and a lost child fails all that the id holds (E14)."""
    bench.announce(1)
    bench.start(*branches(4))
    (message,) = bench.sent
    first = claims(bench, message)
    assert first is not None
    assert claims(bench, message) is None
    engine = StoreEngine(bench.coordinator, bench.edge, bench.clock, bench.catalog)
    assert engine.fail_delivery(SAGA, "d2", Verdict(Failure("WorkerLostError", "")), decide=True)
    failed = [entry.step for entry in bench.log() if entry.type == "failed"]
    assert failed == [first.step]


@pytest.mark.parametrize("allowed", [True, False])
def test_a_process_whose_report_another_decided_over_keeps_its_place(
    bench: Bench, allowed: bool
) -> None:
    """Two branches end together, and one process decides over both reports."""
    other = bench.beside()
    bench.announce(2)
    bench.start(*branches(5))
    held, sent = bench.claim(), len(bench.sent)
    bench.forget()
    flow = bench.report_of(held, allowed=allowed)
    decides = other.coordinator.coordinate(SAGA)
    following = bench.interrupted(flow, "commit", lambda: other.edge.run(decides))
    if allowed:
        assert following is not None
        assert following.step in {"p1", "p2", "p3", "p4"}
    else:
        assert following is None
        (message,) = bench.sent[sent:]
        assert message.step in {"p2", "p3", "p4"}  # p1 was sent before
    other.edge.close()


def test_a_place_is_handed_on_to_what_nobody_has_begun(redis_url: str) -> None:
    """Other processes claim two branches just before; the third one gets the slot."""
    bench = Bench(redis_url, letter_of=lambda message: Letter("queue", message.step))
    other = Bench(redis_url)
    bench.announce(1)
    other.edge.run(other.catalog.refresh(force=True))
    bench.start(*branches(4))
    held = bench.take_engine("p0")

    def meanwhile() -> None:
        for step in ("p3", "p1"):
            ref = AttemptRef(Kind.RUN, step, 1)
            claim = other.coordinator.slots.claim(SAGA, ref, delivery=step, queue="io")
            assert other.edge.run(claim)

    bench.interrupted(bench.report_of(held, allowed=False), "handover", meanwhile)
    assert bench.edge.client.lrange("queue", 0, -1) == [b"p2"]
    bench.edge.close()
    other.edge.close()


def test_a_message_takes_nothing_of_a_saga_that_stops(bench: Bench) -> None:
    """A message takes another branch after a take-over, but not after an operator's stop (E19)."""
    bench.announce(1)
    bench.start(*branches(4))
    message = bench.sent[0]
    held = bench.claim()
    bench.ask(Action.PAUSE)
    assert claims(bench, message) is None
    bench.ask(Action.RESUME)
    bench.ask(Action.CANCEL)
    assert claims(bench, message) is None
    assert bench.succeed(held) is None
