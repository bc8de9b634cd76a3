"""What does the log of a worker that starts say of the workflows that it has found?

Which ones, in which modules, which functions they name that are not there, and to which queues
their steps go that no worker consumes.  It shows a module that was forgotten, or stands where no
worker looks.  No I/O here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Sequence

import structlog

from multiagents.core.names import COORDINATOR_QUEUE
from multiagents.workflows import registry
from multiagents.workflows.missing_functions import missing
from multiagents.workflows.workflow import TaskCall, Workflow

log = structlog.get_logger(__name__)
MISSING_LOG = "multiagents.missing"
missing_log = structlog.get_logger(MISSING_LOG)
"""Of its own: `dev` tells the same in its own way."""
SHOWN = 10
"""Modules, or workflows, of a line."""
_OURS = "multiagents."
NO_WORKFLOW = "no workflow is registered"
WHERE = (
    "sagas.py belongs into a package of INSTALLED_APPS; without Django, the app's `imports` name"
    " the modules that register workflows"
)


def tell_workflows() -> None:
    """Say what the modules of a team's app have registered; warn if that is nothing."""
    workflows = sorted(registry.registered())
    modules = sorted(
        name
        for name in sys.modules
        if name.rpartition(".")[2] == "sagas" and not name.startswith(_OURS)
    )
    log.info("workflows are registered", workflows=_some(workflows), sagas_modules=_some(modules))
    if not workflows and not registry.forgotten():
        log.warning(NO_WORKFLOW, fix=WHERE)


def tell_missing(functions: Collection[str]) -> None:
    """Name the functions of workflows that are none of these: often one that is mistyped."""
    if not functions:
        return  # which is told already
    for each in missing(registry.registered().values(), functions, place_of=registry.place_of):
        (missing_log.warning if each.meant else missing_log.info)(each.text)


def tell_queues(missing: Collection[str], consumed: Iterable[str]) -> None:
    """Warn of queues that neither this worker nor another one consumes."""
    if missing:
        log.warning(
            "no running worker consumes queues to which this worker's workflows send",
            queues=sorted(missing),
            fix=f"start it with -Q {','.join(sorted({*consumed, *missing}))}, or another worker"
            " for them",
        )


def queues_of(workflows: Iterable[Workflow], queue_of: Callable[[str], str]) -> set[str]:
    """Where their steps and undos go, as far as that is known, and the engine's own queue.

    ``queue_of``: the queue of a worker function.  That of a plain task is the app's routing to say,
    unless the workflow names it.
    """
    targets = [
        (target, queue)
        for workflow in workflows
        for step in workflow.steps
        for target, queue in ((step.worker, step.queue), (step.compensation, None))
        if target is not None
    ]
    places = {
        queue or (target.queue if isinstance(target, TaskCall) else queue_of(target))
        for target, queue in targets
    }
    return {COORDINATOR_QUEUE, *filter(None, places)} if targets else set()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN]) or 'none'}{more}"
