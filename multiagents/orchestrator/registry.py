"""Which workflows does this process know by name?

Filled at import time by ``register(workflow)``, read when a worker publishes what it knows and
when a saga is started by name.  Nothing here outlives the process, and nothing is checked against
other processes: a running saga is pinned to its version whatever stands here (rule 9).
"""

from __future__ import annotations

from multiagents.orchestrator.graph import check, refuse
from multiagents.orchestrator.workflow import Workflow

_workflows: dict[str, Workflow] = {}


def register(workflow: Workflow) -> Workflow:
    """Make the workflow startable by name, and return it; under one name the newest wins.

    Raises InvalidWorkflow if it has mistakes, so that no broken definition is ever published.
    """
    errors = check(workflow)
    if errors:
        raise refuse(f"workflow {workflow.name!r}", errors)
    _workflows[workflow.name] = workflow
    return workflow


def registered() -> dict[str, Workflow]:
    """The workflows by name, in the order of their first registration; a copy."""
    return dict(_workflows)


def find(name: str) -> Workflow | None:
    """The workflow of that name; None if this process has none."""
    return _workflows.get(name)


def forget(name: str) -> None:
    """Take the workflow out again, if it is there; running sagas keep theirs."""
    _workflows.pop(name, None)
