"""Which worker functions and plain tasks do the steps and undos of workflows call, and where?

No other module walks over them.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Callee:
    """The function or task that a step or its undo calls."""

    workflow: str
    step: Step
    target: str | TaskCall
    """The name of a worker function, or a plain task."""
    is_undo: bool = False

    @property
    def role(self) -> str:
        """The field of the step that names the callee."""
        return "compensation" if self.is_undo else "worker"

    @property
    def place(self) -> str:
        """The place in the definition that names the callee."""
        return f"workflow {self.workflow!r}, {self.role} of step {self.step.name!r}"

    @property
    def queue(self) -> str:
        """The queue that the definition names; empty for none."""
        if isinstance(self.target, TaskCall):
            return self.target.queue or self.step.queue or ""
        return "" if self.is_undo else self.step.queue or ""


def callees(workflows: Iterable[Workflow]) -> Iterator[Callee]:
    """For each step the callee of the step, then that of its undo, in definition order."""
    for workflow in workflows:
        for step in workflow.steps:
            yield Callee(workflow.name, step, step.worker)
            if step.compensation is not None:
                yield Callee(workflow.name, step, step.compensation, is_undo=True)


def plain_tasks(workflows: Iterable[Workflow]) -> Iterator[tuple[Callee, TaskCall]]:
    """The callees that are users' own Celery tasks."""
    for each in callees(workflows):
        if isinstance(each.target, TaskCall):
            yield each, each.target


def functions(workflows: Iterable[Workflow]) -> Iterator[tuple[Callee, str]]:
    """The callees that are worker functions."""
    for each in callees(workflows):
        if isinstance(each.target, str):
            yield each, each.target
