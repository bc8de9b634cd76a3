"""How is a worker of this project started?

Each running worker publishes its launch: the app after ``celery -A``, MULTIAGENTS_IMPORTS where
the package's own app needs it, its queues, its worker functions and its app's plain tasks.  A
launch outlives its worker, so that `explain` and `doctor` can say how to start one like it when
none runs.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from multiagents.core import program
from multiagents.core.names import DEFAULT_QUEUES
from multiagents.storage.calls import Plain
from multiagents.storage.keys import Shard
from multiagents.storage.replies import hash_of

KEPT_MS = 30 * 86_400_000
"""How long a launch is kept after its last worker."""
OWN_APP = "multiagents"
MEND = "correct the name, or have a worker import the module that has it, and start it again"
"""The advice where another worker like the running ones would lack a function too."""
UNKNOWN_MODULE = "YOUR_MODULE"
UNKNOWN_APP = "YOUR_APP"
_KEY = Shard(0).catalog("launches")
_of_caller: ContextVar[Launch | None] = ContextVar("launch_of_caller", default=None)


@dataclass(frozen=True, slots=True)
class Launch:
    """One way in which workers are started."""

    app: str = OWN_APP
    imports: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    at_ms: int = 0
    """When such a worker last gave a sign of life."""
    tasks: tuple[str, ...] | None = None
    """The names of the app's own tasks; None: not known, from an earlier version."""
    routes: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Plain task -> the queue to which the app routes it, for the tasks that workflows call."""

    def command(self, queues: Iterable[str]) -> str:
        """The command that starts such a worker, for these queues, else for its functions'."""
        words = ["celery", "-A", self.app, "worker"]
        if names := ",".join(sorted(queues)):
            words += ["-Q", names]
        if self.imports:
            words.insert(0, f"MULTIAGENTS_IMPORTS={','.join(self.imports)}")
        return shlex.join(words)

    @property
    def name(self) -> str:
        """What identifies it among launches."""
        return json.dumps([self.app, self.imports, self.queues])


@contextmanager
def called_for(app: str) -> Iterator[None]:
    """Within the block, advice without a known launch names this app, the caller's."""
    token = _of_caller.set(Launch(app) if app else None)
    try:
        yield
    finally:
        _of_caller.reset(token)


def unknown_app() -> Launch:
    """The launch of a team's own app without a known worker."""
    return _askers() or Launch(UNKNOWN_APP)


def _askers() -> Launch | None:
    """The launch of the app that the command line names, or that this program has attached."""
    if (named := _of_caller.get()) is not None:
        return named
    name = program.app_name()
    return None if name is None else Launch(name or UNKNOWN_APP)


def launch_of(
    app: str,
    *,
    imports: Iterable[str],
    queues: Iterable[str],
    functions: Iterable[str],
    tasks: tuple[str, ...] | None = None,
    routes: Mapping[str, str] | None = None,
) -> Launch | None:
    """How this very process was started; None without functions, or without a command.

    ``app``: its name, if the command line has none.
    """
    name, known = app_named(sys.argv, app), tuple(sorted(functions))
    own = app == OWN_APP
    if not name or (own and not known):
        return None
    places = tuple(sorted(queues))
    imported = tuple(imports) if own else ()
    return Launch(name, imported, places, known, tasks=tasks, routes=routes or {})


def app_named(argv: Sequence[str], default: str) -> str:
    """The app's name as a command line gave it to Celery, else the default.

    Empty if no command line started this worker: it runs inside another program.
    """
    return (app_option(argv) or default) if "worker" in argv[1:] else ""


def app_option(argv: Sequence[str]) -> str:
    """The app's name as a command line gave it to Celery; empty if it did not."""
    for at, word in enumerate(argv):
        if word in ("-A", "--app") and at + 1 < len(argv):
            return argv[at + 1]
        found = re.fullmatch(r"(?:-A|--app=)(.+)", word)
        if found:
            return found[1]
    return ""


async def remember(launch: Launch) -> None:
    """Publish a launch, and remove those unseen for `KEPT_MS`."""
    told = {
        "at_ms": launch.at_ms,
        "functions": launch.functions,
        "tasks": launch.tasks,
        "routes": dict(launch.routes),
    }
    await Plain(("HSET", _KEY, launch.name, json.dumps(told)), int)
    known = await Plain(("HGETALL", _KEY), hash_of)
    old = [
        name for name, text in known.items() if launch.at_ms - json.loads(text)["at_ms"] > KEPT_MS
    ]
    if old:
        await Plain(("HDEL", _KEY, *old), int)


async def read() -> list[Launch]:
    """All known launches, the last one seen first."""
    known = await Plain(("HGETALL", _KEY), hash_of)
    found = [_launch(name, json.loads(text)) for name, text in known.items()]
    return sorted(found, key=lambda launch: -launch.at_ms)


def routes_of(fleet: Mapping[str, Mapping[str, Any]], launches: Iterable[Launch]) -> dict[str, str]:
    """Plain task -> the queue to which its app sends it, by running workers, else by launches."""
    found: dict[str, str] = {}
    for launch in launches:
        found = {**launch.routes, **found}
    for member in fleet.values():
        found |= member.get("routes") or {}
    return found


def advice(
    launches: Sequence[Launch],
    *,
    queues: Iterable[str] = (),
    functions: Iterable[str] = (),
    imports: Sequence[str] = (),
    alone: bool = False,
) -> str:
    """The command that starts a worker for these queues with these functions.

    ``launches``: the last one seen first.  ``imports``: the caller's modules, if no launch is
    known.  ``alone``: no worker runs, so this one is to consume all queues of such a worker.
    """
    places = set(queues)
    found = launch_for(launches, functions, imports)
    if alone or not places:
        # Without -Q a worker consumes the queues of its functions, which are not known here.
        is_default = not found.queues and places <= set(DEFAULT_QUEUES)
        places = set() if is_default else places | set(found.queues or DEFAULT_QUEUES)
    return found.command(places)


def is_running(launch: Launch, fleet: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether workers of the same app and modules run: another would lack the same."""
    running = {(each.get("app"), tuple(each.get("imports") or ())) for each in fleet.values()}
    return (launch.app, launch.imports) in running


def launch_for(
    launches: Sequence[Launch], functions: Iterable[str], imports: Sequence[str] = ()
) -> Launch:
    """The launch to repeat; if none has the functions, with the caller's modules or a gap."""
    wanted, imports = set(functions), tuple(imports)
    able = [each for each in launches if wanted <= set(each.functions)]
    if able:
        return able[0]
    theirs = next((each for each in launches[:1] if each.app != OWN_APP), None) or _askers()
    if theirs is not None:
        return theirs  # an app of its own imports its own modules
    if not launches:
        return Launch(imports=imports or (UNKNOWN_MODULE,))
    last = launches[0]
    more = tuple(name for name in imports if name not in last.imports)
    return replace(last, imports=(*last.imports, *(more or (UNKNOWN_MODULE,))))


def has_dev(launches: Sequence[Launch]) -> bool:
    """Whether `multiagents dev` would start a worker like these: of the package's own app."""
    last = launches[0] if launches else _askers() or Launch()
    return last.app == OWN_APP


def _launch(name: str, told: dict[str, Any]) -> Launch:
    app, imports, queues = json.loads(name)
    functions, tasks = tuple(told["functions"]), told.get("tasks")
    tasks = None if tasks is None else tuple(tasks)
    routes = told.get("routes") or {}
    return Launch(app, tuple(imports), tuple(queues), functions, told["at_ms"], tasks, routes)
