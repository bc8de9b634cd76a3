"""How does `multiagents dev` run its worker, and replace it when the code changes?

After a change the worker begins a warm shutdown, and another starts at once with the new code, so
sagas continue.  A file that cannot be parsed changes nothing.  After a failed import no worker runs
until a file is saved again.  If the worker reads the terminal (`breakpoint()`), it ends before the
next one begins.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from multiagents.cli.dev.report import QUIET, VERBOSE, WorkerReport
from multiagents.cli.errors import CommandError
from multiagents.cli.output import hint
from multiagents.cli.session import Session
from multiagents.cli.source_files import SourceFiles, flaw_of, shown
from multiagents.cli.worker_process import READY_S, STOP_S, WorkerProcess

LOOK_S = 0.5
"""How often the files and the worker are checked."""
PREFORK = "prefork"
_LOOK_NOW_S = 0.0


def last_words(text: str) -> None:
    """Print a note during the stop; a closed terminal does not prevent the stop."""
    with suppress(OSError):
        hint(text)


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of the worker."""

    env: Mapping[str, str]
    pool: str = PREFORK
    concurrency: int = 2
    verbose: bool = False
    reload: bool = True

    @property
    def has_terminal(self) -> bool:
        """Whether steps can read the terminal; the children of a prefork pool cannot."""
        return self.pool != PREFORK and sys.stdin is not None and sys.stdin.isatty()


class DevWorker:
    """One worker, which sends a report when it is ready."""

    def __init__(self, wish: Wish, number: int) -> None:
        self._reads, self._writes = os.pipe()
        self._text = b""
        mode = VERBOSE if wish.verbose else QUIET
        self.worker = WorkerProcess(
            "dev" if number == 1 else f"dev{number}",
            env={"PYTHONUNBUFFERED": "1", **wish.env},
            options=(
                *("-l", "INFO", "-c", str(wish.concurrency), "-P", wish.pool),
                *("--without-gossip", "--without-mingle"),
            ),
            queues=None,
            program=(
                *("multiagents.cli.dev.worker", str(self._writes), mode),
                *(() if wish.verbose else ("-q",)),
            ),
            stdin=sys.stdin.fileno() if wish.has_terminal else subprocess.DEVNULL,
            pass_fds=(self._writes,),
        )

    def start(self) -> Self:
        """Start the process."""
        try:
            self.worker.__enter__()
        finally:
            os.close(self._writes)
        return self

    def wait_ready(self, session: Session) -> WorkerReport:
        """The report of the ready worker.  Raises CommandError if it ends, or takes too long."""
        ends_at = time.monotonic() + READY_S
        self.worker.wait_until(self._has_reported, ends_at)
        self.worker.wait_until(lambda: self.worker.hostname in session.fleet(), ends_at)
        return WorkerReport.from_json(self._text)

    def _has_reported(self) -> bool:
        while select.select([self._reads], [], [], _LOOK_NOW_S)[0]:
            chunk = os.read(self._reads, 65_536)
            self._text += chunk
            if not chunk:
                break
        return self._text.endswith(b"\n")

    def stop(self, within_s: float = STOP_S) -> None:
        """Stop the worker and its children."""
        with suppress(OSError):
            os.close(self._reads)
        self.worker.stop(within_s)


class ServerEnded(CommandError):
    """The server of this `dev` has ended."""


class DevWorkers:
    """The present worker, and earlier ones that still end their last steps after a change."""

    def __init__(
        self,
        wish: Wish,
        session: Callable[[], Session],
        server_runs: Callable[[], bool] = lambda: True,
    ) -> None:
        """``server_runs``: whether the server of this `dev` is alive."""
        self._server_runs = server_runs
        self._wish = wish
        self._session = session
        self._count = 0
        self._files = SourceFiles(())
        self._leaving: list[tuple[DevWorker, float]] = []
        """Each with the time at which it is killed."""
        self._due = False
        """Whether a worker has to start as soon as the terminal is free."""
        self._reported = False
        """Whether a worker was ready, so that the server lists it."""
        self.now: DevWorker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        all_of_them = [each for each, _ in self._leaving]
        if self.now is not None:
            all_of_them.append(self.now)
        for each in all_of_them:
            each.worker.leave()
        if kind is KeyboardInterrupt and self.now is not None:
            last_words(
                f"stopping: a running step has {STOP_S:g} s to end; Ctrl-C again does not wait"
            )
        if kind is ServerEnded:  # without a server no step can report, and the list cannot change
            self._reported = False
        for each in all_of_them:
            self._stop(each, _LOOK_NOW_S if kind is ServerEnded else STOP_S)

    def _stop(self, worker: DevWorker, within_s: float = STOP_S) -> None:
        """Stop the worker, and remove it from the server's list for the next `dev`."""
        worker.stop(within_s)
        if self._reported:
            self._session().runtime.leave(worker.worker.hostname)

    def start(self) -> DevWorker:
        """Start the worker."""
        self._count += 1
        self._due = False
        self.now = DevWorker(self._wish, self._count)
        return self.now.start()

    @property
    def hostname(self) -> str:
        """The worker's name."""
        return "" if self.now is None else self.now.worker.hostname

    @property
    def pid(self) -> int | None:
        """The pid of its main process."""
        return None if self.now is None else self.now.worker.process.pid

    def ready(self) -> WorkerReport:
        """The report of the worker once it is ready.  Raises CommandError."""
        if self.now is None:
            raise CommandError("no worker runs")
        report = self.now.wait_ready(self._session())
        self._reported = True
        self._files = SourceFiles(report.files)
        fleet = self._session().fleet().values()
        running = {name for member in fleet for name in member["workers"]}
        lacking = {name: text for name, text in report.missing.items() if name not in running}
        return replace(report, missing=lacking)

    def run(self) -> None:
        """Watch the worker, the server and the files.

        Raises CommandError when the worker has ended, ServerEnded when the server has.
        """
        while True:
            self._wait()
            if not self._server_runs():
                raise ServerEnded("the server has ended; its sagas go on when dev runs again")
            self._let_go()
            if self.now is not None and not self.now.worker.is_running:
                raise self._ended(self.now.worker)
            if self._wish.reload and (changed := self._files.changed()):
                self._change(changed)
            if self._due and not self._leaving:
                self._renew()

    def _ended(self, worker: WorkerProcess) -> CommandError:
        if not worker.was_killed:
            return worker.ended()
        return CommandError(f"{worker.ended()}; its sagas go on when dev runs again")

    def _wait(self) -> None:
        if self.now is None:
            time.sleep(LOOK_S)
            return
        with suppress(subprocess.TimeoutExpired):
            self.now.worker.process.wait(LOOK_S)

    def _let_go(self) -> None:
        """Drop earlier workers that have ended, and kill those that take too long."""
        for each, ends_at in list(self._leaving):
            if not each.worker.is_running or time.monotonic() >= ends_at:
                self._stop(each, _LOOK_NOW_S)
                self._leaving.remove((each, ends_at))

    def _change(self, changed: list[str]) -> None:
        names = shown(changed)
        if flaw := flaw_of(changed):
            goes_on = "the worker keeps the old code" if self.now else "no worker runs"
            hint(f"{flaw}: {goes_on}, until the file is saved again")
            return
        if self.now is not None:
            self._dismiss(names)
        if self._due:
            return
        if self.now is None and not self._leaving:
            hint(f"{names} changed: a worker starts")
        self._renew()

    def _dismiss(self, names: str) -> None:
        """Begin the worker's warm shutdown; with a terminal its steps have unlimited time."""
        worker, self.now = self.now, None
        if worker is None:
            return
        worker.worker.leave()
        if self._wish.has_terminal:
            hint(f"{names} changed: the worker restarts when the running step has ended")
            self._leaving.append((worker, float("inf")))
            self._due = True
        else:
            hint(f"{names} changed: the worker restarts; a running step has {STOP_S:g} s to end")
            self._leaving.append((worker, time.monotonic() + STOP_S))

    def _renew(self) -> None:
        began = time.monotonic()
        worker = self.start()
        try:
            report = self.ready()
        except CommandError as error:
            self.now = None
            self._stop(worker, _LOOK_NOW_S)
            self._files = self._files.wider()
            hint(f"{error}; no worker runs until a file is saved again")
        else:
            hint(f"ready again after {time.monotonic() - began:.1f} s")
            for text in report.missing.values():
                hint(text)
