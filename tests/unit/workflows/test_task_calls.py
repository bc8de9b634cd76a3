"""Does a plain task get a call it can take, or does the build refuse it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog
from celery import Celery, shared_task
from celery.app import trace

from multiagents import InvalidWorkflow, WorkflowBuilder, task
from multiagents.cli.doctor.workers import plain_calls
from multiagents.hosting import published, start_log
from multiagents.workflows import registry

team = Celery("calls", broker="redis://127.0.0.1:1/0", set_as_current=False)


class Own(team.Task):  # type: ignore[name-defined,misc]  # celery has no types
    """A base class that may add arguments."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The call of Flask's context task."""
        return super().__call__(*args, **kwargs)


@team.task(name="calls.nothing")
def nothing() -> None: ...


@team.task(name="calls.bound", bind=True, autoretry_for=(OSError,))
def bound(self: Any) -> None: ...


@team.task(name="calls.context")
def context_task(context: Any) -> None: ...


@shared_task(name="calls.shared")
def shared(given: Any = None, *more: Any) -> None: ...


@team.task(name="calls.rename")
def rename(widget: str, name: str) -> None: ...


@team.task(name="calls.keys")
def keys(*, name: str) -> None: ...


@team.task(name="calls.own", base=Own)
def own(widget: str, name: str) -> None: ...


@pytest.mark.parametrize(
    ("target", "args"),
    [
        (nothing, ()),
        (bound, ()),
        (context_task, None),
        (shared, None),
        (own, None),
        ("calls.rename", None),
    ],
)
def test_a_task_gets_the_context_or_nothing(target: Any, args: tuple[str, ...] | None) -> None:
    """The signature decides; a task known only by name, or with its own call, gets the context."""
    call = task(target)
    assert call.args == args
    if not isinstance(target, str):
        assert WorkflowBuilder("calls").add_step("a", target).build().steps[0].worker == call


def test_a_task_that_takes_other_arguments_is_refused_with_its_line() -> None:
    """The build lists all such steps and compensations together."""
    builder = WorkflowBuilder("calls").add_step("a", rename, compensation=keys)
    with pytest.raises(InvalidWorkflow) as caught:
        builder.build()
    step, undo = caught.value.errors
    place = f"({Path(__file__).name}:{rename.run.__code__.co_firstlineno})"
    assert step.startswith(f"calls.steps[0] 'a': worker: task 'calls.rename' {place} takes (widget")
    assert step.endswith("but would get only the context: write task(rename, args=[...])")
    assert undo.endswith("but would get only the context: write task(keys, kwargs={...})")


@pytest.mark.parametrize(
    ("target", "given", "said"),
    [
        (rename, {}, "but would get only the context"),
        (rename, {"args": ["input.a"]}, "not 1 in args$"),
        (rename, {"args": ["input.a"], "kwargs": {"nme": "key"}}, "not 1 in args, 'nme' in kwargs"),
        (nothing, {"args": ["input.a"]}, r"takes \(\).*, not 1 in args"),
    ],
)
def test_arguments_that_a_task_does_not_take_are_refused(
    target: Any, given: dict[str, Any], said: str
) -> None:
    """Missing, surplus and misnamed arguments are refused."""
    with pytest.raises(InvalidWorkflow, match=rf"task\(\): task 'calls\.\w+' .*{said}"):
        task(target, **given)


def test_a_starting_worker_names_steps_whose_tasks_take_something_else() -> None:
    """The worker is the first to know the signature of a task given by name."""
    builder = WorkflowBuilder("calls")
    builder.add_step("a", task("calls.nothing"), compensation=task("calls.rename", args=["key"]))
    builder.add_step("b", task("calls.nothing", args=[]), compensation=task("calls.elsewhere"))
    builder.add_step("c", task("calls.own"))
    builder.build().register()
    try:
        with structlog.testing.capture_logs() as said:
            start_log.warn_of_misfits(team)
    finally:
        registry.forget("calls")
    place = f"({Path(__file__).name}:"
    events = [line["event"] for line in said]
    assert [event.partition(place)[0] for event in events] == [
        "workflow 'calls', worker of step 'a': task 'calls.nothing' ",
        "workflow 'calls', compensation of step 'a': task 'calls.rename' ",
    ]
    assert events[0].endswith("takes (), not the context")
    assert events[1].endswith("takes (widget, name), not 1 in args")


def test_a_worker_process_sees_what_does_not_fit() -> None:
    """Celery has replaced every task's ``__call__`` with its tracer's there."""
    trace._install_stack_protection()
    try:
        with pytest.raises(InvalidWorkflow, match="not 1 in args"):
            task(rename, args=["input.a"])
        assert task(own).args is None  # which has its own call
    finally:
        trace.reset_worker_optimizations(team)


def test_doctor_names_calls_that_do_not_fit() -> None:
    """`doctor` needs the app, because a name alone says nothing of the parameters."""
    workflow = WorkflowBuilder("calls").add_step("a", task("calls.rename", args=["key"])).build()
    found = plain_calls([workflow], team.tasks)
    assert found.status == "warn"
    assert "worker of step 'a': task 'calls.rename'" in found.message
    assert plain_calls([workflow], {}).status == "ok"


def test_a_starting_worker_names_steps_whose_tasks_it_lacks() -> None:
    """It names the step or undo and the nearest task before a saga gets there."""
    builder = WorkflowBuilder("lacks")
    builder.add_step("a", task("calls.nothing", args=[]), compensation=task("cals.nothign"))
    builder.add_step("b", task("calls.notify"))
    builder.build().register()
    try:
        with structlog.testing.capture_logs() as said:
            start_log.warn_of_unregistered(team)
    finally:
        registry.forget("lacks")
    assert [line["event"] for line in said] == [
        "workflow 'lacks', compensation of step 'a': this worker has no task 'cals.nothign';"
        " did you mean 'calls.nothing'?",
        "workflow 'lacks', worker of step 'b': this worker has no task 'calls.notify'",
    ]
    assert said[0]["fix"] == "correct the name, unless another worker has the task"


def test_a_worker_publishes_the_plain_tasks_of_its_app() -> None:
    """It omits Celery's own tasks and the engine's."""
    told = published.about(team)
    assert "calls.nothing" in told["tasks"]
    assert not [name for name in told["tasks"] if name.startswith(("celery.", "multiagents."))]


def test_arguments_that_fit_are_taken() -> None:
    """Positional, keyword and mixed arguments pass."""
    assert task(rename, args=["input.a"], kwargs={"name": "key"}).kwargs == {"name": "key"}
    assert task(own, args=["input.a"]).args == ("input.a",)
    assert task("calls.rename", args=["input.a"]).args == ("input.a",)
