"""Which histories once broke a law?

Each test is the shortest one found; its name says what must happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from multiagents.core.entries import (
    Claimed,
    Entry,
    Failed,
    Failure,
    Lost,
    Requested,
    Started,
    Succeeded,
    TimerDue,
    Unroutable,
    Withdrawn,
    decode,
    encode,
)
from multiagents.core.policies import RetryPolicy
from multiagents.core.states import Action as Ask
from multiagents.core.states import FailureEffect, Kind, SagaState, StepState, UndoState
from multiagents.lab.simulator.laws.saga import SagaJudge
from multiagents.saga.commands import Adopt, Command, Dispatch, SetTimer
from multiagents.saga.decide import decide
from multiagents.saga.state import Saga, StepRun, new_saga
from multiagents.workflows.step import Step
from multiagents.workflows.workflow import Workflow

BOOM = Failure("Boom", "boom")
ONCE = RetryPolicy(max_attempts=1)
RUN, UNDO = Kind.RUN, Kind.UNDO


@dataclass
class Story:
    """A saga told entry by entry; the laws judge every decision."""

    workflow: Workflow
    commands: list[Command] = field(default_factory=list)
    now_ms: int = 1000

    def __post_init__(self) -> None:
        self.watch = SagaJudge(self.workflow)
        self.saga: Saga = new_saga(
            "saga",
            workflow="w",
            version="v",
            steps=tuple(self.workflow.by_name),
            now_ms=self.now_ms,
        )
        self.tell(Started(self.now_ms))

    def tell(self, entry: Entry) -> Story:
        decision = self.watch.decide(self.saga, entry)
        self.saga = decision.saga
        self.commands = list(decision.commands)
        return self

    def run(self, name: str) -> StepRun:
        return self.saga.steps[name]

    def _row(self, kind: Kind, name: str, attempt: int) -> tuple[Kind, str, int, str]:
        number = attempt or self.run(name).of(kind).attempt
        return kind, name, number, f"{kind}{name}{number}"

    def claim(self, kind: Kind, name: str) -> Story:
        return self.tell(Claimed(self.now_ms, *self._row(kind, name, 0)))

    def succeed(self, kind: Kind, name: str, attempt: int = 0) -> Story:
        return self.tell(Succeeded(self.now_ms, *self._row(kind, name, attempt)))

    def fail(self, kind: Kind, name: str, attempt: int = 0, *, retry: bool = False) -> Story:
        row = self._row(kind, name, attempt)
        return self.tell(Failed(self.now_ms, *row, BOOM, retryable=retry))

    def lose(self, kind: Kind, name: str, attempt: int = 0) -> Story:
        return self.tell(Lost(self.now_ms, *self._row(kind, name, attempt)))

    def withdraw(self, kind: Kind, name: str) -> Story:
        return self.tell(Withdrawn(self.now_ms, *self._row(kind, name, 0)))

    def unroutable(self, kind: Kind, name: str) -> Story:
        return self.tell(Unroutable(self.now_ms, *self._row(kind, name, 0)[:3], BOOM))

    def ask(self, command: Ask, step: str = "", **letter: Any) -> Story:
        self.now_ms += 1
        row = (self.now_ms, command, f"{command}{self.now_ms}")
        return self.tell(Requested(*row, step=step, **letter))

    def done(self, *names: str) -> Story:
        for name in names:
            self.claim(RUN, name).succeed(RUN, name)
        return self


def _step(name: str, *after: str, **options: Any) -> Step:
    undo = None if options.get("pivot") else "undo"
    return Step(name=name, worker="work", depends_on=after, compensation=undo, **options)


def _story(*steps: Step, **options: Any) -> Story:
    return Story(Workflow(name="w", steps=steps, **options))


def test_a_loss_told_twice_still_leaves_room_for_the_late_report() -> None:
    """A second `Lost` does not use up the claim whose outcome is still to come (E6)."""
    story = _story(_step("a", retry=ONCE)).claim(RUN, "a")
    lost = Lost(story.now_ms, RUN, "a", 1, story.run("a").run.nonce)
    story.tell(lost)
    again = decide(story.workflow, story.saga, lost, lost.at_ms)
    assert again.saga == story.saga


def test_an_overrun_told_after_the_loss_still_leaves_room_for_the_late_report() -> None:
    """Lease and process both gave up the attempt, which still runs (E6)."""
    story = _story(_step("a", retry=ONCE)).claim(RUN, "a").lose(RUN, "a")
    row = (RUN, "a", 1, story.run("a").run.nonce)
    story.claim(UNDO, "a").succeed(UNDO, "a")
    story.tell(Failed(story.now_ms, *row, BOOM, running=True)).succeed(RUN, "a", 1)
    assert story.commands == [Adopt("a", "runa1"), Dispatch(UNDO, "a", 2)]


def test_a_late_success_does_not_hide_the_attempt_under_way() -> None:
    """The undo waits for a step's second attempt after a late report of the first (rule 4, E7)."""
    story = _story(_step("a"), _step("b", retry=ONCE))
    story.claim(RUN, "a").lose(RUN, "a").tell(TimerDue(9000, "run:a:1")).claim(RUN, "a")
    story.claim(RUN, "b").fail(RUN, "b").succeed(RUN, "a", 1)
    assert story.run("a").run.state is StepState.RUNNING
    assert not any(isinstance(c, Dispatch) for c in story.commands)
    story.succeed(RUN, "a", 2)
    assert story.commands == [Dispatch(UNDO, "a", 1)]


def test_a_late_success_before_the_failure_is_undone_whatever_the_step_says() -> None:
    """compensate_on_failure="never" concerns failures, not a late success."""
    story = _story(_step("a", compensate_on_failure="never"))
    story.claim(RUN, "a").lose(RUN, "a").succeed(RUN, "a", 1)
    story.tell(TimerDue(9000, "run:a:1")).claim(RUN, "a").fail(RUN, "a")
    assert story.commands == [Dispatch(UNDO, "a", 1)]


def test_a_late_failure_of_unknown_outcome_is_undone_again() -> None:
    """A zombie that fails after the undo may have acted after it, too (E7)."""
    story = _story(_step("a", retry=ONCE)).claim(RUN, "a").lose(RUN, "a")
    story.claim(UNDO, "a").succeed(UNDO, "a")
    assert story.saga.state is SagaState.COMPENSATED
    story.fail(RUN, "a", 1)
    assert story.commands == [Dispatch(UNDO, "a", 2)]
    assert story.saga.attention


def test_each_late_end_of_a_given_up_attempt_is_undone_again() -> None:
    """Each of two threads left running may act after the undo (E6)."""
    story = _story(_step("a", retry=ONCE)).claim(RUN, "a")
    row = (RUN, "a", 1, story.run("a").run.nonce)
    story.tell(Failed(story.now_ms, *row, BOOM, running=True))
    for part, more in ((1, True), (2, False)):
        story.claim(UNDO, "a").succeed(UNDO, "a")
        assert story.saga.state is SagaState.COMPENSATED
        story.tell(Failed(story.now_ms, *row, BOOM, running=more, part=part))
        assert story.commands == [Dispatch(UNDO, "a", part + 1)]
        assert story.saga.attention
    assert story.run("a").lost == ()


def test_an_attempt_that_another_step_cut_off_does_not_count() -> None:
    """The step is retried whatever its policy, and keeps its attempts (E7)."""
    story = _story(_step("a", retry=ONCE))
    for kind in (RUN, UNDO):
        for effect in (FailureEffect.CLEAN, FailureEffect.UNKNOWN):
            attempt = story.claim(kind, "a").run("a").of(kind).attempt
            row = (story.now_ms, kind, "a", attempt, story.run("a").of(kind).nonce, BOOM)
            story.tell(Failed(*row, effect=effect, retry_after_ms=500, counts=False))
            assert story.run("a").of(kind).tries == 0
            assert [type(command) for command in story.commands] == [SetTimer]
            story.tell(TimerDue(story.now_ms + 500, f"{kind}:a:{attempt}"))
        story.claim(kind, "a").fail(kind, "a")
    assert story.run("a").unknown
    assert story.run("a").undo.tries == 1


def test_the_late_ends_of_one_attempt_are_entries_of_their_own() -> None:
    """A known id would not be appended again (E4)."""
    row = (0, RUN, "a", 1, "n", BOOM)
    endings = [(part, more) for part in (0, 1, 2) for more in (True, False)]
    entries = [Failed(*row, running=more, part=part) for part, more in endings]
    assert len({entry.id for entry in entries}) == len(entries)
    assert [decode(encode(entry)) for entry in entries] == entries


def test_a_step_taken_back_after_an_unknown_attempt_is_undone_before_its_ancestors() -> None:
    """A pause withdrew its second attempt, and then the saga is cancelled (rule 4)."""
    story = _story(_step("a"), _step("b", "a")).done("a")
    story.claim(RUN, "b").lose(RUN, "b").tell(TimerDue(9000, "run:b:1"))
    story.ask(Ask.PAUSE).withdraw(RUN, "b").ask(Ask.CANCEL)
    assert story.commands == [Dispatch(UNDO, "b", 1)]


def test_a_skipped_dead_letter_is_undone_before_its_ancestors() -> None:
    """The skipped step's attempts may have had effects (rule 4)."""
    story = _story(_step("a"), _step("b", "a"), _step("c", "b", retry=ONCE)).done("a")
    story.claim(RUN, "b").lose(RUN, "b").tell(TimerDue(9000, "run:b:1")).unroutable(RUN, "b")
    story.ask(Ask.SKIP, "b").claim(RUN, "c").fail(RUN, "c").claim(UNDO, "c").succeed(UNDO, "c")
    assert story.commands == [Dispatch(UNDO, "b", 1)]


def test_retried_undos_wait_for_their_turn() -> None:
    """Two dead letters retried together are undone singly, last completed first (rule 4)."""
    story = _story(_step("a"), _step("b", "a"), _step("c", "b", retry=ONCE)).done("a", "b")
    story.claim(RUN, "c").fail(RUN, "c")
    for name in ("c", "b", "a"):
        story.claim(UNDO, name).fail(UNDO, name)
    assert story.saga.state is SagaState.FAILED
    story.ask(Ask.RETRY)
    assert story.commands == [Dispatch(UNDO, "c", 2)]


def test_a_cancel_is_not_forgotten_when_nobody_can_take_the_pivot() -> None:
    """The withdrawal finds that no worker has the pivot's function."""
    story = _story(_step("a"), _step("p", "a", pivot=True)).done("a").ask(Ask.CANCEL)
    story.unroutable(RUN, "p")
    assert story.commands == [Dispatch(UNDO, "a", 1)]


def test_a_timer_that_came_due_while_paused_is_made_up_for_by_any_clock() -> None:
    """The sweeper's clock was ahead of the resuming process's clock (E19)."""
    story = _story(_step("a")).claim(RUN, "a").fail(RUN, "a", retry=True).ask(Ask.PAUSE)
    story.tell(TimerDue(story.run("a").run.retry_at, "run:a:1"))
    story.ask(Ask.RESUME)
    assert story.commands == [Dispatch(RUN, "a", 2)]


def test_after_terminate_no_undo_is_tried_again() -> None:
    """A running undo may end, and a failed one is not retried (rule 6)."""
    story = _story(_step("a"), _step("b", "a", retry=ONCE)).done("a").claim(RUN, "b")
    story.fail(RUN, "b").claim(UNDO, "b").ask(Ask.TERMINATE).fail(UNDO, "b", retry=True)
    assert story.commands == []
    assert story.run("b").undo.state is UndoState.SKIPPED


def test_terminate_closes_dead_letters() -> None:
    """A dead letter out of every action's reach would keep the saga for ever (rule 13)."""
    story = _story(_step("a"), _step("b")).unroutable(RUN, "a").ask(Ask.TERMINATE)
    assert story.run("a").run.state is StepState.FAILED


def test_a_decision_on_a_dead_letter_passes_over_any_other() -> None:
    """Its step was parked and is being undone, and the undo is parked now."""
    story = _story(_step("a")).claim(RUN, "a").lose(RUN, "a")
    story.tell(TimerDue(9000, "run:a:1")).unroutable(RUN, "a")
    seen = {"step": "a", "letter": RUN, "parked_at": story.run("a").run.ended_at}
    story.ask(Ask.CANCEL).claim(UNDO, "a").fail(UNDO, "a")
    before = story.saga
    story.ask(Ask.SKIP, **seen)
    assert story.run("a").undo.state is UndoState.PARKED
    assert story.saga.attention == before.attention
    story.ask(Ask.SKIP, step="a", letter=RUN)  # for any time of its parking
    assert story.run("a").undo.state is UndoState.PARKED
    undo_at = story.run("a").undo.ended_at
    story.ask(Ask.SKIP, step="a", letter=UNDO, parked_at=undo_at - 1)
    assert story.run("a").undo.state is UndoState.PARKED
    story.ask(Ask.SKIP, step="a", letter=UNDO, parked_at=undo_at)
    assert (story.run("a").undo.state, story.saga.attention) == (UndoState.SKIPPED, ())


def test_settling_a_dead_letter_leaves_the_other_calls_for_a_person() -> None:
    """An unknown report (E5), and other parked work, still ask for attention."""
    story = _story(_step("a"), _step("b"), _step("c", "a", "b")).done("a", "b")
    story.claim(RUN, "c").fail(RUN, "c").claim(UNDO, "c").succeed(UNDO, "c")
    for name in ("b", "a"):
        story.claim(UNDO, name).fail(UNDO, name)
    story.tell(Succeeded(story.now_ms, RUN, "c", 1, "feed"))
    unknown = "report of an unknown attempt of 'c'"
    assert story.saga.attention == ("undo of 'b' is parked", "undo of 'a' is parked", unknown)
    story.ask(Ask.SKIP, "b")
    assert story.saga.attention == ("undo of 'a' is parked", unknown)
    story.ask(Ask.RETRY)
    assert story.saga.attention == (unknown,)
    story.claim(UNDO, "a").succeed(UNDO, "a").ask(Ask.RESOLVE)
    assert story.saga.attention == ()


def test_a_refused_target_of_an_end_that_the_server_has_lost_is_not_noted() -> None:
    """The saga ends again, and refusals of that end are recorded then (E5, E12)."""
    target = "link 1 (mail) of saga"
    story = _story(_step("a")).claim(RUN, "a")
    story.tell(Unroutable(story.now_ms, RUN, "", 0, BOOM, target=target))
    assert story.saga.attention == ()
    story.succeed(RUN, "a")
    story.tell(Unroutable(story.now_ms + 1, RUN, "", 0, BOOM, target=target))
    assert story.saga.attention == (f"{target} cannot be told: {BOOM.type}: {BOOM.message}",)
