"""How is a saga followed?

`snapshots` reads a saga at most four times a second until it ends.  `watch` prints a live table on
a terminal, and otherwise a line per change or JSON.  Reasons why the saga does not move go to
stderr.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Annotated, Any

import typer

from multiagents.cli.errors import OK, SAGA_FAILED, explained
from multiagents.cli.output import Json, console, emit, hint, say
from multiagents.cli.render import error_text, has_ended, live_view, saga_view, step_line
from multiagents.cli.session import Session, connect

SagaId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A saga id, its unique beginning, or a Celery id of its starts or steps."
    ),
]

PERIOD_S = 0.25
"""The time between two reads of a saga; a shorter one makes no visible difference."""
STILL_S = 5.0
"""After this long without a change, each look checks whether the saga can move."""
AWAY_S = 1.0
"""The time between two reads while the server does not answer."""
AWAY = "{}: waiting for it, and saga {} goes on when it is back (Ctrl-C ends only the waiting)"

GOES_ON = "it goes on: multiagents watch {}"
WAITS = "it waits for an operator: multiagents explain {}"
PERSON = "saga {} waits for an operator ({}):\n  multiagents explain {}"

STRANDED = "saga {}: {}; see\n  multiagents explain {}"
MOVES = "saga {} can move again"


def watch(saga_id: SagaId, json_output: Json = False) -> None:
    """Follow a saga until it ends: each step with its state, attempt, time, progress and undo.

    With --json one line per change. The exit code is 1 if the saga did not complete. Ctrl-C ends
    only the watching (exit code 130); the saga continues.
    """
    session = connect()
    with going_on(snapshots(session, saga_id)) as found:
        if json_output:
            last = _each(found, emit)
        elif sys.stdout.isatty():
            last = live(session, found)
        else:
            last = _each(found, _Lines())
    raise typer.Exit(exit_code(last))


@contextmanager
def going_on(found: Iterator[dict[str, Any]]) -> Iterator[Iterator[dict[str, Any]]]:
    """Pass on the snapshots of a saga; at Ctrl-C print on stderr how it continues."""
    from multiagents.operations.projection import person_awaited

    last: dict[str, Any] = {}

    def noted() -> Iterator[dict[str, Any]]:
        nonlocal last
        for saga in found:
            last = saga
            yield saga

    try:
        yield noted()
    except KeyboardInterrupt:
        if last and not has_ended(last):
            then = WAITS if person_awaited(last) else GOES_ON
            hint("\n" + then.format(last["transaction_id"]))
        raise


def snapshots(
    session: Session, saga_id: str, *, timeout_s: float | None = None, told: str = ""
) -> Iterator[dict[str, Any]]:
    """Snapshots of the saga; the last one is at its end, or at the end of ``timeout_s``.

    It waits while the server does not answer.  Notes go to stderr, each once: that the server is
    away, why the saga waits for an operator, and why no worker moves it.  ``told``: earlier notes.
    """
    from multiagents.operations.projection import person_awaited

    ends_at = inf if timeout_s is None else time.monotonic() + timeout_s
    said, stillness = "", _Stillness(session, told)
    while True:
        saga = _get(session, saga_id, ends_at)
        saga_id = saga["transaction_id"]  # the given id may be a beginning, or a task's
        yield saga
        why = person_awaited(saga)
        if why and why != said:
            hint(PERSON.format(saga_id, why, saga_id))
        said = why
        if has_ended(saga) or time.monotonic() >= ends_at:
            return
        stillness.look(saga)
        time.sleep(PERIOD_S)


class _Stillness:
    """Prints why nothing can move a saga, once until that changes."""

    def __init__(self, session: Session, told: str) -> None:
        self._session = session
        self._told = told
        self._last: dict[str, Any] = {}
        self._since = time.monotonic()

    def look(self, saga: dict[str, Any]) -> None:
        """Print the reasons that are new; called for each snapshot."""
        now = time.monotonic()
        if saga != self._last:
            moved, self._last, self._since = bool(self._last), saga, now
            if moved:
                self._say("")
        elif now - self._since >= STILL_S:
            self._since = now
            self._say(self._stranded(saga["transaction_id"]))

    def _stranded(self, saga_id: str) -> str:
        from multiagents.storage.client import UNREACHABLE

        try:
            return self._session.runtime.outcomes.stranded(saga_id)
        except UNREACHABLE:  # the next read of the saga waits for its server
            return self._told

    def _say(self, why: str) -> None:
        if why == self._told:
            return
        self._told, saga_id = why, self._last["transaction_id"]
        hint(STRANDED.format(saga_id, why, saga_id) if why else MOVES.format(saga_id))


def _get(session: Session, saga_id: str, ends_at: float) -> dict[str, Any]:
    """The saga; prints on stderr that its server does not answer, and raises at ``ends_at``."""
    from multiagents.storage.client import UNREACHABLE

    began, said = time.monotonic(), False
    while True:
        try:
            saga: dict[str, Any] = session.call("get", saga_id)
        except UNREACHABLE as error:
            if time.monotonic() >= ends_at:
                raise
            if not said:
                hint(AWAY.format(explained(error).partition("; ")[0], saga_id))
                said = True
            time.sleep(AWAY_S)
        else:
            if said:
                hint(f"the server is back after {time.monotonic() - began:.0f} s")
            return saga


def last_snapshot(session: Session, saga_id: str, *, timeout_s: float | None) -> dict[str, Any]:
    """The saga at its end, or at the end of ``timeout_s``."""
    return last_of(snapshots(session, saga_id, timeout_s=timeout_s))


def last_of(found: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The last of the snapshots."""
    return deque(found, maxlen=1)[0]


def exit_code(saga: dict[str, Any]) -> int:
    """0 for a completed saga, else 1."""
    return OK if saga["state"] == "completed" else SAGA_FAILED


def _each(found: Iterator[dict[str, Any]], show: Callable[[dict[str, Any]], None]) -> Any:
    """Show each snapshot that differs from the one before; return the last."""
    last: dict[str, Any] | None = None
    for saga in found:
        if saga != last:
            show(saga)
        last = saga
    return last


def live(
    session: Session, found: Iterator[dict[str, Any]], *, leaves: bool = True
) -> dict[str, Any]:
    """Show the snapshots as a live table; return the last.

    ``leaves``: the table stays on the screen at the end; it always stays after an interruption.
    """
    from rich.live import Live

    saga: dict[str, Any] = {}
    with Live(console=console(), auto_refresh=False) as display:
        for saga in found:
            display.update(live_view(saga, session.now_ms), refresh=True)
        display.transient = not leaves
    return saga


class _Lines:
    """A line for each step that changed, and for the saga."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def __call__(self, saga: dict[str, Any]) -> None:
        for name, step in saga["steps"].items():
            waiting = step["state"] == "waiting"
            if not waiting or name in self._seen:
                self._say(name, step_line(name, step))
        error = f" ({error_text(saga['error'])})" if saga["error"] else ""
        self._say("", f"saga {saga['transaction_id']} {saga['state']}{error}")

    def _say(self, name: str, line: str) -> None:
        if self._seen.get(name) != line:
            self._seen[name] = line
            say(line)


def show_saga(session: Session, saga: dict[str, Any], *, as_json: bool, full: bool = False) -> None:
    """Print a saga, with --json or ``full`` all of its values."""
    if as_json:
        emit(saga)
    else:
        console().print(saga_view(saga, session.now_ms, full=full))
