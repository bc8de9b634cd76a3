"""What do the sagas of the stored states do?

Their workers' results and errors depend only on step and attempt, so a half-way stored saga ends
the same under any engine.  Workers and workflows here are part of every stored state: add to them,
change none.
"""

from __future__ import annotations

from typing import Any

from celery import shared_task

from multiagents import NonRetryableError, WorkerExecutionError, WorkflowBuilder, task, worker
from multiagents.workflows.workflow import Workflow

SOON = {"max_attempts": 3, "backoff_s": 0.2, "jitter": False}
ONCE = {"max_attempts": 1}
WIDTH = 25
"""Branches of the fan-out: so many that readers bring themselves up to date from the log."""


@worker("fx_do")
def do(context: Any) -> dict[str, Any]:
    return {context.step: context.attempt}


@worker("fx_check")
def check(context: Any) -> dict[str, Any]:
    """Return the note of the attempt before."""
    return {"noted": context.checkpoint_value}


@worker("fx_flaky", retry=SOON)
def flaky(context: Any) -> dict[str, Any]:
    if context.attempt < 3:
        raise WorkerExecutionError(f"attempt {context.attempt}")
    return {context.step: context.attempt}


@worker("fx_fail")
def fail(context: Any) -> dict[str, Any]:
    raise NonRetryableError("broken")


@worker("fx_second")
def second(context: Any) -> dict[str, Any]:
    """An operator has to retry this one."""
    if context.attempt == 1:
        raise NonRetryableError("not the first time")
    return {context.step: context.attempt}


@worker("fx_undo")
def undo(context: Any) -> dict[str, Any]:
    return {"undone": context.step_result}


@worker("fx_flaky_undo")
def flaky_undo(context: Any) -> dict[str, Any]:
    if context.attempt == 1:
        raise WorkerExecutionError("undo it later")
    return {}


@shared_task(name="fx.plain")
def plain(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"args": list(args), **kwargs}


WORKERS = (do, check, flaky, fail, second, undo, flaky_undo)
PLAIN = task("fx.plain", args=["input.sku"], kwargs={"key": "key"}, timeout_s=60)


def _chain(name: str, *workers: str, undo: str | None = "fx_undo", **options: Any) -> Workflow:
    builder = WorkflowBuilder(name, **options)
    for number, each in enumerate(workers):
        builder.add_step(f"s{number}", each, compensation=undo)
    return builder.build()


def _fan(name: str, *, parallel_undo: bool = False, width: int = 3, last: str) -> Workflow:
    branches = [(f"b{number}", "fx_do", "fx_undo") for number in range(width)]
    builder = WorkflowBuilder(name, parallel_undo=parallel_undo, tags=["fixture"])
    return builder.parallel(branches).add_step("join", last).build()


chain = _chain("chain", "fx_do", "fx_do", "fx_do", tags=["fixture"])
breaks = _chain("breaks", "fx_do", "fx_do", "fx_fail")
checks = _chain("checks", "fx_check", "fx_do")
flakes = _chain("flakes", "fx_flaky", "fx_do")
once = WorkflowBuilder("once").add_step("s0", "fx_do", compensation="fx_undo", retry=ONCE).build()
late = _chain("late", "fx_do", "fx_do", timeout_s=1)
undo_flakes = _chain("undo_flakes", "fx_do", "fx_fail", undo="fx_flaky_undo")
undo_parks = _chain("undo_parks", "fx_do", "fx_fail", undo="fx_second")
pivots = (
    WorkflowBuilder("pivots")
    .add_step("s0", "fx_do", compensation="fx_undo")
    .add_step("pivot", "fx_do", pivot=True)
    .add_step("after", "fx_second")
    .build()
)
fan = _fan("fan", last="fx_do", width=WIDTH)
fan_undo = _fan("fan_undo", last="fx_fail", parallel_undo=True)
plains = (
    WorkflowBuilder("plains")
    .add_step("s0", PLAIN, compensation=task("fx.plain", args=["result.args"], timeout_s=60))
    .add_step("s1", PLAIN)
    .add_step("s2", "fx_do")
    .build()
)
chooses = (
    WorkflowBuilder("chooses")
    .add_step("s0", "fx_do", compensation="fx_undo")
    .add_step("yes", "fx_do", when="steps.s0.result.s0 == 1")
    .add_step("no", "fx_do", depends_on=["s0"], when="input.amount > 100")
    .add_step("behind", "fx_do", depends_on=["no"])
    .add_step("join", "fx_do", depends_on=["yes", "behind"], failed_when="result.join == 1")
    .build()
)
WORKFLOWS = (
    chain,
    breaks,
    checks,
    flakes,
    once,
    late,
    undo_flakes,
    undo_parks,
    pivots,
    fan,
    fan_undo,
    plains,
    chooses,
)
for _workflow in WORKFLOWS:
    _workflow.register()
