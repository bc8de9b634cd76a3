"""What does the builder make of steps, workers and mistakes?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from celery import Celery

from multiagents.core.exceptions import InvalidInput, InvalidWorkflow
from multiagents.core.policies import RetryPolicy
from multiagents.workflows.builder import WorkflowBuilder, task
from multiagents.workflows.files import load_definition
from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.workflow import Workflow

app = Celery("shop", set_as_current=False)


@app.task(name="shop.charge")
def charge(order: dict[str, Any]) -> dict[str, Any]:
    """A task of a team's own app, without knowledge of sagas."""
    return order


class OurWorker:
    """The result of ``@worker``, as far as the builder reads it."""

    is_multiagents_worker = True

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, context: dict[str, Any]) -> dict[str, Any]:
        return context

    def apply_async(self) -> None:
        """A marked worker may also have this method; the mark decides."""


def dependencies(workflow: Workflow) -> Mapping[str, tuple[str, ...]]:
    """The dependencies of each step."""
    return {step.name: step.depends_on for step in workflow.steps}


def test_steps_follow_each_other_unless_told_otherwise() -> None:
    """Without ``depends_on`` a step follows the last one; ``[]`` makes a root."""
    built = (
        WorkflowBuilder("order")
        .add_step("a", "work")
        .add_step("b", "work")
        .add_step("root", "work", depends_on=[])
        .add_step("c", "work")
        .add_step("d", "work", depends_on="a")
        .add_step("join", "work", depends_on=["b", "d"])
        .build()
    )
    assert dependencies(built) == {
        "a": (),
        "b": ("a",),
        "root": (),
        "c": ("root",),
        "d": ("a",),
        "join": ("b", "d"),
    }


def test_what_follows_a_parallel_group_waits_for_all_branches() -> None:
    """Branches follow the last step, the group's ``depends_on``, or their own."""
    built = (
        WorkflowBuilder("order")
        .add_step("a", "work")
        .parallel([("b", "work"), ("c", "work", "undo"), {"name": "d", "worker": "work"}])
        .parallel(
            [
                Step(name="e", worker="work"),
                Step(name="f", worker="work", depends_on=("a",)),
                {"name": "g", "worker": "work", "depends_on": []},
            ],
            depends_on="b",
        )
        .add_step("end", "work")
        .build()
    )
    assert dependencies(built) == {
        "a": (),
        "b": ("a",),
        "c": ("a",),
        "d": ("a",),
        "e": ("b",),
        "f": ("a",),
        "g": (),
        "end": ("e", "f", "g"),
    }
    assert built.by_name["c"].compensation == "undo"


def test_a_worker_is_given_by_name_or_by_object() -> None:
    """Names, marked workers, Celery tasks, task calls and objects with ``worker_name`` work."""

    class Named:
        worker_name = "mail"

    built = (
        WorkflowBuilder("order")
        .add_step("a", "reserve", compensation=OurWorker("release"))
        .add_step("b", charge, compensation=task("shop.refund", args=["result.id"]))
        .add_step("c", Named())
        .parallel([("d", charge), {"name": "e", "worker": OurWorker("ship")}])
        .build()
    )
    found = {step.name: (step.worker, step.compensation) for step in built.steps}
    assert found == {
        "a": ("reserve", "release"),
        "b": (TaskCall(task="shop.charge"), TaskCall(task="shop.refund", args=("result.id",))),
        "c": ("mail", None),
        "d": (TaskCall(task="shop.charge"), None),
        "e": ("ship", None),
    }


def test_task_takes_an_object_and_maps_its_arguments() -> None:
    """The object's name is stored, and unset values keep the model's defaults."""
    call = task(charge, kwargs={"order": "input.order"}, queue="shop", timeout_s=5)
    assert call == TaskCall(
        task="shop.charge", kwargs={"order": "input.order"}, queue="shop", timeout_s=5
    )
    assert task("shop.charge").timeout_s == 300


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("shop.charge", {"args": [5]}, "task('shop.charge'): args[0] should be a valid string"),
        ("shop.charge", {"args": "input.x"}, "args should be a list, not str"),
        ("shop.charge", {"timeout_s": 0}, "timeout_s should be greater than 0, not 0"),
        (5, {}, "task should be a valid string, not 5"),
    ],
)
def test_task_refuses_bad_fields(target: object, options: Any, message: str) -> None:
    """The error has the wording of a definition's mistakes."""
    with pytest.raises(InvalidWorkflow) as raised:
        task(target, **options)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "retry", [5, {"max_attempts": 5}, RetryPolicy(max_attempts=5)], ids=["int", "dict", "policy"]
)
def test_a_retry_policy_has_three_forms(retry: Any) -> None:
    """A number, a dict and a policy give the same workflow and version."""
    built = WorkflowBuilder("order").add_step("a", "work", retry=retry).build()
    assert built.steps[0].retry == RetryPolicy(max_attempts=5)
    plain = {"name": "order", "steps": [{"name": "a", "worker": "work", "retry": 5}]}
    assert built.version == load_definition(plain).version


def test_every_option_arrives_in_the_workflow() -> None:
    """The workflow has every option that was set."""
    built = (
        WorkflowBuilder("order", parallel_undo=True, tags=["shop"], description="one order")
        .timeout(60)
        .tag("eu", "b2c")
        .add_step(
            "a",
            "work",
            compensation="undo",
            when="input.x == 1",
            failed_when="result.ok == false",
            timeout_s=3,
            compensation_retry={"max_attempts": 2},
            compensation_timeout_s=4,
            compensate_on_failure="always",
            queue="fast",
            priority=9,
        )
        .add_step("b", "work", pivot=True)
        .build()
    )
    assert (built.timeout_s, built.tags, built.parallel_undo) == (60, ("shop", "eu", "b2c"), True)
    assert built.description == "one order"
    assert built.pivot is built.steps[1]
    assert built.steps[0] == Step(
        name="a",
        worker="work",
        compensation="undo",
        when="input.x == 1",
        failed_when="result.ok == false",
        timeout_s=3,
        compensation_retry=RetryPolicy(max_attempts=2),
        compensation_timeout_s=4,
        compensate_on_failure="always",
        queue="fast",
        priority=9,
    )


def test_all_mistakes_are_reported_together() -> None:
    """`build` raises once with every mistake; `errors` lists them without raising."""
    builder = (
        WorkflowBuilder("order", timeout_s=-1)
        .add_step("reserve", "work", retry={"max_attempts": 0, "backof_s": 1})
        .add_step("charge", len, when="input.x >")
        .add_step("ship", task("t", args=["steps.late.result"]), depends_on=["pay"], priority=10)
        .parallel([("late",), 7])
        .add_step("ship", "work", depends_on=[])
    )
    with pytest.raises(InvalidWorkflow, match="workflow 'order' has 11 mistakes:") as raised:
        builder.build()
    assert raised.value.errors == builder.errors
    assert [error.split(";")[0] for error in builder.errors] == [
        "order: timeout_s should be greater than 0, not -1",
        "order.steps[3].parallel[0]: a step is a mapping with 'name' and 'worker', not tuple",
        "order.steps[3].parallel[1]: a step is a mapping with 'name' and 'worker', not int",
        "order.steps[0] 'reserve': retry.max_attempts should be greater than or equal to 1, not 0",
        "order.steps[0] 'reserve': unknown key 'backof_s' in retry",
        "order.steps[1] 'charge': worker should be a worker's name, a @worker function, a Celery"
        " task or task(...), not builtin_function_or_method 'len'",
        "order.steps[2] 'ship': priority should be less than or equal to 9, not 10",
        "order.steps[1] 'charge': when: CEL 'input.x >': at character 10: it ends too early",
        "order.steps[2] 'ship': waits for unknown step 'pay'",
        "order.steps[2] 'ship': worker.args[0]: CEL 'steps.late.result': unknown step 'late'",
        "order.steps[4] 'ship': the name is taken by order.steps[2] 'ship'",
    ]


def test_one_mistake_is_one_line() -> None:
    """The message fits a log line and a terminal."""
    with pytest.raises(InvalidWorkflow) as raised:
        WorkflowBuilder("order").build()
    assert str(raised.value) == "invalid workflow: order: has no steps; add at least one"


def test_an_undecorated_function_is_answered_with_the_decorator() -> None:
    """This is the likeliest mistake in a first workflow."""

    def work(context: dict[str, Any]) -> dict[str, Any]:
        return context

    (error,) = WorkflowBuilder("order").add_step("a", work).errors
    assert error.endswith("not function 'work'; decorate the function with @worker")


def test_the_next_step_is_the_first_that_waits() -> None:
    """`None` means the start or the end; an error about an unknown step lists the known ones."""
    built = WorkflowBuilder("order").add_step("a", "w").parallel([("b", "w"), ("c", "w")]).build()
    first = built.get_next_step(None)
    assert first is built.steps[0]
    assert built.get_next_step("a", {"any": "context"}) is built.steps[1]
    assert built.get_next_step("c") is None
    with pytest.raises(InvalidInput, match="workflow 'order' has no step 'x'; known: a, b, c"):
        built.get_next_step("x")
