"""What does a starting worker log about its workflows?

Their names and modules; and each mistake in a line with its fix.  Such are unregistered workflows,
functions and plain tasks that are missing or have other arguments, and queues without a worker.  No
I/O here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Sequence

import structlog
from celery import Celery

from multiagents.core.names import COORDINATOR_QUEUE
from multiagents.core.places import in_brackets
from multiagents.core.texts import some_of
from multiagents.hosting.published import own_tasks
from multiagents.worker_sdk import registry as workers
from multiagents.workflows import registry
from multiagents.workflows.callees import callees
from multiagents.workflows.missing_functions import missing
from multiagents.workflows.step import TaskCall
from multiagents.workflows.task_calls import misfits, unregistered
from multiagents.workflows.workflow import Workflow

log = structlog.get_logger(__name__)
MISSING_LOG = "multiagents.missing"
missing_log = structlog.get_logger(MISSING_LOG)
"""A logger of its own, because `dev` shows the same in another way."""
SHOWN = 10
"""The most modules or workflows in a line."""
_OURS = "multiagents."
NO_WORKFLOW = "no workflow is registered"
WHERE = (
    "sagas.py belongs into a package of INSTALLED_APPS; without Django, the app's `imports` name"
    " the modules that register workflows"
)
NO_CONSUMER = "no running worker consumes queues to which this worker's workflows send"
NO_FUNCTION = "no running worker has functions that this worker's workflows name"


def warn_of_no_functions(app: Celery, *, own: bool) -> None:
    """Warn of a worker without any function, which can only give its messages back."""
    if workers.workers() or own_tasks(app):
        return
    place = "MULTIAGENTS_IMPORTS" if own else "the app's imports"
    log.warning(
        "this worker has no worker functions: it gives back every step that it takes",
        fix=f"name the modules with your workers in {place}, and start it again",
    )


def log_workflows() -> None:
    """Log the workflows that the modules of a team's app have registered; warn if none are."""
    workflows = sorted(registry.registered())
    modules = sorted(
        name
        for name in sys.modules
        if name.rpartition(".")[2] == "sagas" and not name.startswith(_OURS)
    )
    log.info("workflows are registered", workflows=_some(workflows), sagas_modules=_some(modules))
    if not workflows and not registry.forgotten():
        log.warning(NO_WORKFLOW, fix=WHERE)


def warn_of_forgotten() -> None:
    """Warn of workflows that are built but not registered: no name starts them."""
    for name, place in registry.forgotten().items():
        log.warning(
            f"workflow {name!r} is built but not registered{in_brackets(place)}",
            fix="call .register() on it, or start it as an object",
        )
    for name, place in registry.unbuilt().items():
        log.warning(
            f"the builder of workflow {name!r} is never built{in_brackets(place)}",
            fix="call .build().register() on it",
        )


def warn_of_misfits(app: Celery) -> None:
    """Warn of steps whose task takes other arguments: a definition has only its name."""
    for place, why in misfits(registry.registered().values(), app.tasks):
        log.warning(f"{place}: {why}", fix="give its arguments in args and kwargs; [] means none")


def warn_of_unregistered(app: Celery) -> None:
    """Warn of tasks that workflows call by name and this app lacks: perhaps no worker has them."""
    for place, why in unregistered(registry.registered().values(), app.tasks):
        log.warning(f"{place}: {why}", fix="correct the name, unless another worker has the task")


def log_missing(functions: Collection[str]) -> None:
    """Log the functions of workflows that are none of these; often a name is mistyped."""
    if not functions:
        return  # `warn_of_no_functions` has logged it
    for each in missing(registry.registered().values(), functions, place_of=registry.place_of):
        (missing_log.warning if each.meant else missing_log.info)(each.text)


def warn_of_queues(missing: Collection[str], consumed: Iterable[str]) -> None:
    """Warn of queues that no running worker consumes."""
    if missing:
        log.warning(
            NO_CONSUMER,
            queues=sorted(missing),
            fix=f"start it with -Q {','.join(sorted({*consumed, *missing}))}, or another worker"
            " for them",
        )


def warn_of_functions(lacking: Collection[str]) -> None:
    """Warn of worker functions that no running worker has."""
    if lacking:
        missing_log.warning(
            NO_FUNCTION,
            functions=_some(sorted(lacking)),
            fix="correct the name, or have this worker or another one import the module that has"
            " it: the steps wait, and are parked after some tries",
        )


def lacking(
    workflows: Iterable[Workflow], functions: Collection[str], *, own: Collection[str]
) -> set[str]:
    """The worker functions of workflows that are none of these.

    ``own``: this worker's functions.  A name like one of them is left out: `log_missing` logs it.
    """
    known = list(workflows)
    mistyped = {each.function for each in missing(known, own) if each.meant}
    return {each.function for each in missing(known, functions)} - mistyped


def queues_of(
    workflows: Iterable[Workflow],
    queue_of: Callable[[str], str],
    route_of: Callable[[str], str] = lambda task: "",
) -> set[str]:
    """The known queues of their steps and undos, and the engine's own queue.

    ``queue_of``: the queue of a worker function.  ``route_of``: the queue of a plain task by the
    app's routing, if its workflow names none; empty if it is not known.
    """
    places: set[str] = set()
    for each in callees(workflows):
        target = each.target
        own = route_of(target.task) if isinstance(target, TaskCall) else queue_of(target)
        places.add(each.queue or own)
    return {COORDINATOR_QUEUE, *filter(None, places)} if places else set()


def _some(names: Sequence[str]) -> str:
    return some_of(names, SHOWN) or "none"
