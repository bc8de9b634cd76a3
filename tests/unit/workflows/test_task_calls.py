"""Is a plain task called as its function takes it, or refused where the workflow is built?"""

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
    """A base class that may well add arguments."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As Flask's context task does."""
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
    """As it takes it; what is known by name alone, or calls in its own way, gets the context."""
    call = task(target)
    assert call.args == args
    if not isinstance(target, str):
        assert WorkflowBuilder("calls").add_step("a", target).build().steps[0].worker == call


def test_a_task_that_takes_other_arguments_is_refused_with_its_line() -> None:
    """As a step and as a compensation, all mistakes together; not when it runs."""
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
    """Too few, too many, or of other names."""
    with pytest.raises(InvalidWorkflow, match=rf"task\(\): task 'calls\.\w+' .*{said}"):
        task(target, **given)


def test_a_starting_worker_names_steps_whose_tasks_take_something_else() -> None:
    """Of a task that is given by its name, the signature is first known there."""
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
    """There Celery has put its tracer's ``__call__`` in the place of every task's."""
    trace._install_stack_protection()
    try:
        with pytest.raises(InvalidWorkflow, match="not 1 in args"):
            task(rename, args=["input.a"])
        assert task(own).args is None  # which is called in a way of its own
    finally:
        trace.reset_worker_optimizations(team)


def test_doctor_names_calls_that_do_not_fit() -> None:
    """With the app at hand: by name a definition says nothing of the task's parameters."""
    workflow = WorkflowBuilder("calls").add_step("a", task("calls.rename", args=["key"])).build()
    found = plain_calls([workflow], team.tasks)
    assert found.status == "warn"
    assert "worker of step 'a': task 'calls.rename'" in found.message
    assert plain_calls([workflow], {}).status == "ok"


def test_a_starting_worker_names_steps_whose_tasks_it_lacks() -> None:
    """A wrong name is found before a saga gets there; the step or the undo, and what was meant."""
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
    """Not Celery's own, nor the engine's."""
    told = published.about(team)
    assert "calls.nothing" in told["tasks"]
    assert not [name for name in told["tasks"] if name.startswith(("celery.", "multiagents."))]


def test_arguments_that_fit_are_taken() -> None:
    """In place, by name, or both."""
    assert task(rename, args=["input.a"], kwargs={"name": "key"}).kwargs == {"name": "key"}
    assert task(own, args=["input.a"]).args == ("input.a",)
    assert task("calls.rename", args=["input.a"]).args == ("input.a",)
