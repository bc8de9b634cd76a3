"""How does a developer run sagas with nothing installed but this package?

`multiagents dev`: an embedded server (or the one that MULTIAGENTS_REDIS_URL names), a worker with
the modules of MULTIAGENTS_IMPORTS, and a stub for the language model if none is set.  All of it
ends with the command.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multiagents.cli.dev.greeting import DevServer, block, start_command
from multiagents.cli.dev.process import DevWorkers, Wish, last_words
from multiagents.cli.dev.report import WorkerReport
from multiagents.cli.errors import CommandError, UnreachableError, masked
from multiagents.cli.model import model_environment
from multiagents.cli.output import Json, emit, hint, say
from multiagents.cli.session import Session, connect, environment, load_code
from multiagents.cli.stop_signals import stopped_by_signals
from multiagents.core.exceptions import InvalidInput, NoServer
from multiagents.core.settings import Settings

if TYPE_CHECKING:
    from multiagents.devserver.server import EmbeddedServer


class PoolName(StrEnum):
    """Celery's pools that need no further package."""

    PREFORK = "prefork"
    SOLO = "solo"
    THREADS = "threads"


Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=0,
        max=65_535,
        help="The server's port; 0: any free one. By default 6379, or a free one if that is taken.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The folder for the server's data (default: .multiagents)."),
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", "-c", min=1, help="How many steps run at once.")
]
PoolOption = Annotated[
    PoolName,
    typer.Option(
        "--pool", "-P", help="The worker's pool; solo lets breakpoint() use this terminal."
    ),
]
Reload = Annotated[
    bool,
    typer.Option("--reload/--no-reload", help="Restart the worker when a file changes."),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print all of Celery's messages and all tracebacks.")
]

USUAL_PORT = 6379
"""The port that other commands use without MULTIAGENTS_REDIS_URL."""


def dev(
    port: Port = None,
    data_dir: DataDir = None,
    concurrency: Concurrency = 2,
    pool: PoolOption = PoolName.PREFORK,
    reload: Reload = True,
    verbose: Verbose = False,
    json_output: Json = False,
) -> None:
    """Run a server and a worker until Ctrl-C; only the data is kept.

    Prints a line for each event of a step. With --json one object is printed when all is ready.
    """
    began = time.monotonic()
    settings = environment()
    begun: list[UsedServer] = []
    with stopped_by_signals(then=lambda: _say_where(begun)), ExitStack() as stack:
        own = not _names_server(settings, port, data_dir)
        hint(f"starting {'a server and a worker' if own else 'a worker'} …")
        _check_code(settings)
        begun.append(_server(stack, settings, port, data_dir))
        place = begun[0].place
        model = model_environment(stack, settings)
        wish = Wish(
            env={"MULTIAGENTS_REDIS_URL": place.url, **model},
            pool=pool.value,
            concurrency=concurrency,
            verbose=verbose,
            reload=reload,
        )
        here = settings.model_copy(update={"redis_url": place.url})
        session = cache(lambda: connect(here))  # while the worker starts
        workers = stack.enter_context(DevWorkers(wish, session, begun[0].server_runs))
        workers.start()
        report = workers.ready()
        others = _others(session(), workers.hostname)
        if json_output:
            facts = _facts(place, workers, wish, report, stub=bool(model))
            emit({**facts, "others": [other.to_dict() for other in others]})
        else:
            _warn(others)
            seconds = time.monotonic() - began
            say(block(place, wish, report, stub=bool(model), seconds=seconds))
        workers.run()


def _check_code(settings: Settings) -> None:
    """Raise InvalidInput for modules and files that the worker could not read, before the start.

    A module that needs a server at its import is left to the worker.
    """
    with suppress(NoServer):
        load_code(settings)


def _names_server(settings: Settings, port: int | None, data_dir: Path | None) -> bool:
    """Whether the environment names a server to use."""
    return "redis_url" in settings.model_fields_set and port is None and data_dir is None


@dataclass(frozen=True, slots=True)
class UsedServer:
    """The server in use, and its process if `dev` runs it."""

    place: DevServer
    server: EmbeddedServer | None = None

    def server_runs(self) -> bool:
        """Whether the server runs; True for a server that `dev` did not start."""
        return self.server is None or self.server.is_running


def _server(
    stack: ExitStack, settings: Settings, port: int | None, data_dir: Path | None
) -> UsedServer:
    if _names_server(settings, port, data_dir):
        _check_there(settings)
        return UsedServer(DevServer(settings.redis_url, None))
    from multiagents.devserver.server import EmbeddedServer, PortTaken

    folder = data_dir or settings.data_dir
    try:
        wanted = USUAL_PORT if port is None else port
        server = stack.enter_context(EmbeddedServer(folder, port=wanted))
    except (InvalidInput, PortTaken) as error:
        if port is not None:
            raise _taken(port) if isinstance(error, PortTaken) else error from None
        server = stack.enter_context(EmbeddedServer(folder))
    return UsedServer(DevServer(server.url, server.data_dir, joined=server.is_shared), server)


def _taken(port: int) -> CommandError:
    return CommandError(
        f"port {port} is taken (by another dev here?); choose another with --port, or 0"
    )


def _check_there(settings: Settings) -> None:
    """Raise CommandError if no server answers, with a remedy that only `dev` has."""
    try:
        connect(settings)
    except UnreachableError as error:
        if (
            settings.state_urls
        ):  # the environment may name the server that is away, and dev cannot start that one
            raise
        raise CommandError(
            f"no server answers at {masked(settings.redis_url)} ({error.reason});"
            " unset MULTIAGENTS_REDIS_URL, and dev starts its own"
        ) from error


def _facts(
    place: DevServer, workers: DevWorkers, wish: Wish, report: WorkerReport, *, stub: bool
) -> dict[str, Any]:
    return {
        "redis_url": masked(place.url),
        "data_dir": str(place.data_dir) if place.data_dir else None,
        "joined": place.joined,
        "worker": workers.hostname,
        "worker_pid": workers.pid,
        "pool": wish.pool,
        "queues": list(report.queues),
        "functions": sorted(report.functions),
        "workflows": list(report.workflows),
        "examples": report.workflows,
        "missing": report.missing,
        "start": start_command(report),
        "stub_model": stub,
    }


def _say_where(begun: list[UsedServer]) -> None:
    """The last line after Ctrl-C."""
    if not begun:
        last_words("stopped")
    elif (server := begun[0].server) is None:
        last_words(f"stopped; the sagas stay on the server at {masked(begun[0].place.url)}")
    elif server.is_shared:
        last_words(f"stopped; the server at {masked(server.url)} goes on for another dev here")
    else:
        folder = server.data_dir
        last_words(f"stopped; the data stays in {folder}, and the next dev here goes on with it")


@dataclass(frozen=True, slots=True)
class Other:
    """Another worker on the server, and the functions of shared queues that either lacks."""

    hostname: str
    lacks: tuple[str, ...]
    brings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The worker as JSON shows it."""
        return asdict(self)


def _others(session: Session, hostname: str) -> list[Other]:
    """The other workers on this server."""
    from multiagents.engine.catalog import split

    fleet = dict(split(session.fleet())[0])
    ours = fleet.pop(hostname, {"queues": [], "workers": {}})
    return [
        Other(name, lacks=_missing(ours, of=each), brings=_missing(each, of=ours))
        for name, each in sorted(fleet.items())
    ]


def _missing(one: Mapping[str, Any], *, of: Mapping[str, Any]) -> tuple[str, ...]:
    """The functions of one worker that the other lacks, although it consumes their queue."""
    return tuple(
        sorted(
            name
            for name, queue in one["workers"].items()
            if queue in of["queues"] and name not in of["workers"]
        )
    )


def _warn(others: list[Other]) -> None:
    for other in others:
        text = f"another worker on this server, {other.hostname}, also claims your steps"
        if other.lacks:
            text += f"; it lacks {', '.join(other.lacks)}, and gives back their steps"
        if other.brings:
            text += f"; this one lacks {', '.join(other.brings)}"
        hint(text)
