"""Do the running workers have the functions, tasks and queues that the workflows need?

Checks of `doctor`, as in `checks`, over data that running workers publish.  No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multiagents.cli.doctor.checks import Check, Fleet, count_of, names_of
from multiagents.core.names import COORDINATOR_QUEUE, QUEUE_IO
from multiagents.core.texts import some_of
from multiagents.engine.launches import (
    MEND,
    OWN_APP,
    Launch,
    advice,
    is_running,
    launch_for,
    routes_of,
)
from multiagents.hosting.start_log import NO_WORKFLOW, WHERE, queues_of
from multiagents.workflows import callees
from multiagents.workflows.task_calls import meant, misfits
from multiagents.workflows.workflow import Workflow

PLACES_SHOWN = 3
"""How many places one finding names."""


@dataclass(frozen=True, slots=True)
class Known:
    """The published data.  ``imports``: MULTIAGENTS_IMPORTS where `doctor` runs."""

    fleet: Fleet
    """The workers that claim work."""
    workflows: Sequence[Workflow] = ()
    launches: Sequence[Launch] = ()
    imports: Sequence[str] = ()
    stopping: Fleet = field(default_factory=dict)
    """Workers that claim no more work, and still run some."""
    route_of: Callable[[str], str] = lambda task: ""
    """The queue to which the app of `doctor` routes a plain task; empty: unknown."""

    def start(self, queues: Iterable[str] = (), functions: Iterable[str] = ()) -> str:
        """The command that starts a worker for these queues and functions."""
        return advice(
            self.launches,
            queues=queues,
            functions=functions,
            imports=self.imports,
            alone=not self.fleet,
        )


def workers(known: Known) -> Check:
    """A worker claims work, and each has a function."""
    fleet = known.fleet
    if not fleet:
        fix = f"start one: {known.start()}"
        gone = f"; {names_of(known.stopping)} {_ends(known.stopping)}" if known.stopping else ""
        what = "no worker claims work" if gone else "no worker is running"
        return Check("workers", "fail", f"{what}: sagas do not move{gone}", fix)
    # A worker of a team's own app, which it names, may have plain tasks only.
    empty = [host for host, each in fleet.items() if not (each["workers"] or each.get("app"))]
    if empty:
        message = (
            f"{names_of(empty)} without any worker function: such a worker gives back each step"
        )
        fix = f"stop it, or start it with its modules: {known.start()}"
        return Check("workers", "warn", message, fix)
    functions = {name for member in fleet.values() for name in member["workers"]}
    message = (
        f"{count_of(len(fleet), 'process')} with {count_of(len(functions), 'worker function')}"
    )
    gone = f"; stopping: {names_of(known.stopping)}" if known.stopping else ""
    return Check("workers", "ok", f"{message}: {names_of(fleet)}{gone}")


def _ends(stopping: Fleet) -> str:
    tasks = sum(member.get("at_work", 0) for member in stopping.values())
    verb = "is" if len(stopping) == 1 else "are"
    return f"{verb} stopping, still at {count_of(tasks, 'task')}"


def workflows(known: Known) -> Check:
    """Each worker of a team's app has registered a workflow."""
    without = [
        host
        for host, each in known.fleet.items()
        if each.get("app", OWN_APP) != OWN_APP and each.get("workflows") == 0
    ]
    if without:
        return Check("workflows", "warn", f"{names_of(without)}: {NO_WORKFLOW}", WHERE)
    return Check("workflows", "ok", f"{len(known.workflows)} published")


def queues(known: Known) -> Check:
    """A worker consumes each queue that steps are sent to."""
    name = "queues"
    consumed = {queue for member in known.fleet.values() for queue in member["queues"]}
    needed = needed_queues(known)
    missing = sorted(needed - consumed)
    if not missing:
        return Check(name, "ok", f"all consumed: {names_of(sorted(needed))}")
    fix = f"start a worker for them: {known.start(missing)}"
    if known.fleet:
        return Check(name, "fail", f"no worker consumes {names_of(missing)}: steps wait", fix)
    return Check(name, "warn", f"no worker consumes {names_of(missing)}", fix)


def needed_queues(known: Known) -> set[str]:
    """The known queues that steps are sent to, and the engine's own."""
    homes = {str(queue) for each in known.fleet.values() for queue in each["workers"].values()}
    routes = routes_of(known.fleet, known.launches)
    named = queues_of(
        known.workflows,
        lambda function: "",
        lambda task: routes.get(task) or known.route_of(task),
    )
    return {COORDINATOR_QUEUE, *homes, *named}


def worker_functions(known: Known) -> Check:
    """A consumer of each step's queue has the worker function that the step names."""
    name, fleet = "worker functions", known.fleet
    if not fleet:
        return Check(name, "ok", "unknown: no worker is running")
    wanted = wanted_of(known)
    missing = sorted(each for each in wanted if not _with(fleet, each[1]))
    if missing:
        shown = [
            f"{function} ({', '.join(wanted[queue, function])})" for queue, function in missing
        ]
        places, functions = ({each[part] for each in missing} for part in (0, 1))
        fix = f"start a worker that has them: {known.start(places, functions)}"
        if is_running(launch_for(known.launches, functions, known.imports), fleet):
            fix = MEND
        return Check(name, "warn", f"no running worker has {names_of(shown)}", fix)
    elsewhere = sorted(each for each in wanted if not _crew(fleet, *each))
    if elsewhere:
        return _elsewhere(known, elsewhere)
    lacking = lacking_of(known)
    if lacking:
        return _lacking(lacking)
    return Check(name, "ok", "none is missing")


def plain_tasks(known: Known) -> Check:
    """A running worker has registered each plain task that a published workflow names.

    A worker without `attach` publishes nothing, so one may have the task all the same.
    """
    name, wanted = "plain tasks", _wanted_tasks(known.workflows)
    if not wanted or not known.fleet:
        why = "no worker is running" if wanted else "no published workflow has one"
        return Check(name, "ok", f"unknown: {why}" if wanted else why)
    there: set[str] = set()
    for host, member in known.fleet.items():
        tasks = _tasks_of(member, known.launches)
        if tasks is None:
            return Check(name, "ok", f"unknown: {host} does not publish its plain tasks")
        there.update(tasks, member["workers"])
    missing = sorted(wanted.keys() - there)
    if not missing:
        return Check(name, "ok", "none is missing")
    shown = [f"{task} ({', '.join(wanted[task])}{meant(task, there)})" for task in missing]
    fix = "correct the name, or start a worker that has it (a worker without `attach` is not seen)"
    return Check(name, "warn", f"no running worker has registered {names_of(shown)}", fix)


def plain_calls(workflows: Iterable[Workflow], tasks: Mapping[str, Any]) -> Check:
    """Each plain task of this app takes the arguments that its workflow passes."""
    name = "plain task calls"
    wrong = [f"{place}: {why}" for place, why in misfits(workflows, tasks)]
    if not wrong:
        return Check(name, "ok", "none is known to have wrong arguments")
    fix = "name its arguments in args and kwargs of task(...); [] passes none"
    return Check(name, "warn", some_of(wrong, PLACES_SHOWN, by="; "), fix)


def _wanted_tasks(workflows: Iterable[Workflow]) -> dict[str, list[str]]:
    """Plain task of a step or an undo -> the names of its workflows."""
    found: dict[str, list[str]] = {}
    for each, call in callees.plain_tasks(workflows):
        if not call.task.startswith("celery."):
            names = found.setdefault(call.task, [])
            names += [] if each.workflow in names else [each.workflow]
    return found


def _tasks_of(member: Mapping[str, Any], launches: Iterable[Launch]) -> tuple[str, ...] | None:
    """The plain tasks of a running worker, by its launch; None: it does not publish them."""
    if not member.get("app"):
        return None
    launch = Launch(member["app"], tuple(member["imports"]), tuple(member["queues"]))
    return next((each.tasks for each in launches if each.name == launch.name), None)


def wanted_of(known: Known) -> dict[tuple[str, str], list[str]]:
    """(queue, function) of each step and undo -> the names of its workflows."""
    homes = {
        function: str(queue)
        for member in known.fleet.values()
        for function, queue in member["workers"].items()
    }
    found: dict[tuple[str, str], list[str]] = {}
    for each, function in callees.functions(known.workflows):
        what = (each.queue or homes.get(function, QUEUE_IO), function)
        names = found.setdefault(what, [])
        names += [] if each.workflow in names else [each.workflow]
    return found


def lacking_of(known: Known) -> dict[str, dict[str, list[str]]]:
    """Hostname -> a queue that it consumes -> functions of steps there that it lacks."""
    found: dict[str, dict[str, list[str]]] = {}
    for queue, function in sorted(wanted_of(known)):
        for host, member in known.fleet.items():
            if queue in member["queues"] and function not in member["workers"]:
                found.setdefault(host, {}).setdefault(queue, []).append(function)
    return found


def _elsewhere(known: Known, elsewhere: Sequence[tuple[str, str]]) -> Check:
    queue, function = elsewhere[0]
    more = f" (and {len(elsewhere) - 1} more such functions)" if len(elsewhere) > 1 else ""
    message = (
        f"no worker that consumes {queue!r} has {function}{more}, which"
        f" {names_of(_with(known.fleet, function))} has: its steps wait"
    )
    functions = [name for place, name in elsewhere if place == queue]
    return Check(
        "worker functions", "fail", message, f"start one: {known.start([queue], functions)}"
    )


def _lacking(lacking: Mapping[str, Mapping[str, Sequence[str]]]) -> Check:
    found = [
        f"{host} consumes {queue!r} without {names_of(functions)}"
        for host, places in lacking.items()
        for queue, functions in places.items()
    ]
    fix = "import the same modules in all workers of a queue, or give the functions another queue"
    message = f"{some_of(found, PLACES_SHOWN, by='; ')}: it gives back their steps"
    return Check("worker functions", "warn", message, fix)


def _with(fleet: Fleet, function: str) -> list[str]:
    return [host for host, member in fleet.items() if function in member["workers"]]


def _crew(fleet: Fleet, queue: str, function: str) -> list[str]:
    return [host for host in _with(fleet, function) if queue in fleet[host]["queues"]]
