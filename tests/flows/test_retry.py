"""Which errors are retried, and how often? (rules 2 and 5)"""

from __future__ import annotations

import json
from bdb import BdbQuit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.core.entries import Claimed, Failed, Failure, Lost, TimerDue
from multiagents.core.error_names import PROGRAMMERS_OWN, name_of, names_of_class
from multiagents.core.exceptions import NonRetryableError, WorkerExecutionError
from multiagents.core.policies import UNDO_RETRY, RetryPolicy
from multiagents.core.states import Action as Ask
from multiagents.core.states import Kind, SagaState, StepState, UndoState
from multiagents.saga.retry import most_tries
from multiagents.saga.state import StepRun, decode_step, encode_step
from multiagents.workflows.step import Step
from multiagents.workflows.workflow import Workflow
from tests.simulation.test_cases import Story

RUN, UNDO = Kind.RUN, Kind.UNDO
ERRORS = [
    *PROGRAMMERS_OWN,
    ModuleNotFoundError,
    OSError,
    TimeoutError,
    ValueError,
    UnicodeError,
    NonRetryableError,
    WorkerExecutionError,
    BdbQuit,
]
_errors = st.sampled_from(ERRORS)
_names = st.lists(st.sampled_from([name_of(each) for each in (*ERRORS, LookupError, Exception)]))
_tries = st.integers(1, 12)


def _story(step: Step) -> Story:
    return Story(Workflow(name="w", steps=(step,)))


def _fire(told: Story, kind: Kind) -> None:
    """Let the step's back-off pass, if it waits."""
    work = told.run("a").of(kind)
    if work.retry_at:
        told.tell(TimerDue(work.retry_at, f"{kind}:a:{work.attempt}"))


def _fail(told: Story, kind: Kind, cls: type[BaseException]) -> None:
    """Claim a step or an undo, and let it raise."""
    told.claim(kind, "a")
    row = (kind, "a", told.run("a").of(kind).attempt, told.run("a").of(kind).nonce)
    error = Failure(cls.__name__, "boom")
    told.tell(Failed(told.now_ms, *row, error, classes=names_of_class(cls)))
    _fire(told, kind)


# ---- what a policy says ----


@given(_errors, st.sampled_from(Kind), _tries, _names, _names)
def test_of_the_classes_that_a_policy_names_the_nearest_decides(
    cls: type[BaseException], kind: Kind, tries: int, on: list[str], not_on: list[str]
) -> None:
    """The policy overrides the default; an error it does not name follows the default."""
    on = [name for name in on if name not in not_on]
    policy = RetryPolicy(max_attempts=tries, on=on, not_on=not_on)
    most = most_tries(policy, kind, names_of_class(cls))
    named = [each for each in cls.__mro__ if name_of(each) in (*on, *not_on)]
    if named:
        assert most == (tries if name_of(named[0]) in on else 0)
    else:
        assert most == most_tries(RetryPolicy(max_attempts=tries), kind, names_of_class(cls))


@given(_errors, _tries)
def test_the_usual_number_of_tries(cls: type[BaseException], tries: int) -> None:
    """A useless retry is not made in a step; a mistake in an undo's code allows three tries."""
    policy, classes = RetryPolicy(max_attempts=tries), names_of_class(cls)
    mistake = issubclass(cls, PROGRAMMERS_OWN)
    final = issubclass(cls, NonRetryableError | BdbQuit)
    step, undo = most_tries(policy, RUN, classes), most_tries(policy, UNDO, classes)
    assert step == (0 if mistake or final or issubclass(cls, ValueError) else tries)
    assert undo == (0 if final else min(tries, 3) if mistake else tries)


@given(st.booleans(), st.sampled_from(Kind), _tries)
def test_a_report_without_classes_is_believed(retryable: bool, kind: Kind, tries: int) -> None:
    """Older logs, and failures without an exception, have none."""
    policy = RetryPolicy(max_attempts=tries, on=["KeyError"], not_on=["Exception"])
    assert most_tries(policy, kind, (), retryable=retryable) == (tries if retryable else 0)


# ---- what becomes of a saga ----


def test_a_programmers_error_fails_its_step_at_once() -> None:
    """The step is undone, because an effect may precede the mistake."""
    told = _story(Step(name="a", worker="w", compensation="u"))
    _fail(told, RUN, KeyError)
    assert told.saga.state is SagaState.COMPENSATING
    assert told.run("a").run.attempt == 1
    assert told.run("a").undo.state is UndoState.DISPATCHED


@pytest.mark.parametrize(
    ("on", "attempts"), [((), 1), (["LookupError"], 4), (["IndexError"], 1)], ids=str
)
def test_a_policy_that_names_an_error_or_its_base_has_it_tried_again(
    on: list[str], attempts: int
) -> None:
    """The policy also says how often."""
    told = _story(Step(name="a", worker="w", retry=RetryPolicy(max_attempts=4, on=on)))
    while told.saga.state is SagaState.RUNNING:
        _fail(told, RUN, KeyError)
    assert told.run("a").run.attempt == attempts


def test_an_undo_with_a_mistake_in_its_code_is_parked_after_three_tries() -> None:
    """It does not take ten tries and minutes, and the saga's other undos go on."""
    told = _story(Step(name="a", worker="w", compensation="u")).done("a")
    told.ask(Ask.ROLLBACK)
    while told.run("a").undo.state is not UndoState.PARKED:
        _fail(told, UNDO, TypeError)
    assert told.run("a").undo.attempt == 3
    assert UNDO_RETRY.max_attempts == 10


def test_the_tries_that_are_left_are_known_while_an_undo_waits() -> None:
    """The step's row keeps them for `explain`, until the next claim."""
    told = _story(Step(name="a", worker="w", compensation="u")).done("a")
    told.ask(Ask.ROLLBACK)
    told.claim(UNDO, "a")
    row = (UNDO, "a", 1, told.run("a").undo.nonce)
    failed = Failed(told.now_ms, *row, Failure("KeyError", "x"), classes=names_of_class(KeyError))
    waiting: StepRun = told.tell(failed).run("a")
    assert (waiting.undo.state, waiting.undo.most) == (UndoState.RETRYING, 3)
    assert decode_step(json.loads(encode_step(waiting, 0)), 0) == waiting
    _fire(told, UNDO)
    assert told.claim(UNDO, "a").run("a").undo.most == 0


def test_the_policy_of_a_step_comes_before_that_of_its_worker() -> None:
    """The worker's names are then ignored, too."""
    workers = RetryPolicy(max_attempts=2, on=["KeyError"])
    for own, attempts in ((None, 2), (RetryPolicy(max_attempts=5), 1)):
        told = _story(Step(name="a", worker="w", retry=own))
        while told.saga.state is SagaState.RUNNING:
            attempt = told.run("a").run.attempt
            told.tell(Claimed(told.now_ms, RUN, "a", attempt, f"n{attempt}", "w", workers))
            row = (RUN, "a", attempt, f"n{attempt}")
            classes = names_of_class(KeyError)
            told.tell(Failed(told.now_ms, *row, Failure("KeyError", "x"), classes=classes))
            _fire(told, RUN)
        assert told.run("a").run.attempt == attempts


def test_a_lost_lease_can_be_named() -> None:
    """A policy can forbid a second begin after a lost worker."""
    policy = RetryPolicy(max_attempts=3, not_on=["LeaseLost"])
    told = _story(Step(name="a", worker="w", compensation="u", retry=policy)).claim(RUN, "a")
    told.tell(Lost(told.now_ms, RUN, "a", 1, told.run("a").run.nonce))
    assert told.run("a").run.state is StepState.FAILED
    assert told.saga.state is SagaState.COMPENSATING
