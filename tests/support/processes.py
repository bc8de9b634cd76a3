"""How do tests run real worker processes and wait for what they do?

Every process is started in its own process group and is gone when its ``with`` block ends.
`wait_for` is the only place in the tests that waits.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import uuid4

from tests.support.forks import Forked, forker, may_fork

ROOT = Path(__file__).resolve().parents[2]
READY_S = 40.0
"""The time for a worker to import its modules and connect, on a loaded machine."""
STOP_S = 10.0
LOG_LINES = 40
ALONE = ("--without-mingle", "--without-gossip")
"""Without these a worker waits a second for its neighbours' answers."""
PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
    *("-p", "no:celery", "-p", "no:docker_tools"),
)
"""pytest for tests like a user's, without container plugins, whose imports take 2 s."""

T = TypeVar("T")


def wait_for(condition: Callable[[], T], deadline_s: float = 10.0, what: str = "") -> T:
    """The first true value of ``condition``.  At the deadline raises TimeoutError with ``what``."""
    pause = threading.Event()
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() >= end:
            raise TimeoutError(f"not within {deadline_s} s: {what or condition}; last: {value!r}")
        pause.wait(0.02)
    return value


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition in this process."""
    wait_for(condition, what=what)


def environment(redis_url: str, imports: str = "", **more: str) -> dict[str, str]:
    """This process's environment, with ``redis_url`` and an import path for ``tests``."""
    own = {
        "MULTIAGENTS_REDIS_URL": redis_url,
        "MULTIAGENTS_IMPORTS": imports,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **own, **more}


def run_script(text: str, redis_url: str, *, deadline_s: float = 60) -> str:
    """The output of a separate program, without white space around it."""
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=environment(redis_url),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def started(*words: str, folder: Path) -> subprocess.Popen[str]:
    """``multiagents WORDS`` in a folder, which also holds its files; its stderr is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "multiagents", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


class Worker:
    """A real ``celery -A multiagents worker`` with all its children.

    ``args`` go to the worker's command line, ``imports`` to MULTIAGENTS_IMPORTS (comma-separated
    modules), ``env`` over its environment.  Leaving the block kills it, which spares the
    seconds of a warm shutdown: a test that is about a stop asks for it.

        with Worker(redis_url, "-Q", "io,llm", imports="tests.some_workers") as worker:
            worker.wait_ready()
    """

    def __init__(
        self,
        redis_url: str,
        *args: str,
        imports: str = "",
        env: Mapping[str, str] | None = None,
        app: str = "multiagents",
    ) -> None:
        self.name = f"test-{uuid4().hex[:8]}@localhost"
        self._args = (*args,)
        self._app = app
        self._env = environment(redis_url, imports, **(env or {}))
        self._process: subprocess.Popen[bytes] | Forked | None = None
        handle, path = tempfile.mkstemp(prefix="worker-", suffix=".log")
        os.close(handle)
        self.log_file = Path(path)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is not None:
                print(f"--- log of worker {self.name}\n{self.log}", file=sys.stderr)
            self.kill()
        finally:
            self.log_file.unlink(missing_ok=True)

    def start(self) -> Self:
        """Start the process; `wait_ready` says when it takes work."""
        words = ["-A", self._app, "worker", *self._options()]
        if may_fork(words, self._env):
            self._process = forker().start(words, self._env, self.log_file)
            return self
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", *words],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def _options(self) -> list[str]:
        options = ["-n", self.name, *(each for each in ALONE if each not in self._args)]
        if not {"-l", "--loglevel"} & set(self._args):
            options += ["-l", "INFO"]
        return [*options, *self._args]

    @property
    def process(self) -> subprocess.Popen[bytes] | Forked:
        if self._process is None:
            raise RuntimeError(f"worker {self.name} is not started; use it in a with block")
        return self._process

    @property
    def pid(self) -> int:
        """The main process, which is the leader of the group."""
        return self.process.pid

    @property
    def log(self) -> str:
        """The output of the worker and its children so far."""
        return self.log_file.read_text(errors="replace")

    def wait_ready(self, deadline_s: float = READY_S) -> Self:
        """Return once the worker takes work.  Raises with the end of its log if it ended."""
        try:
            wait_for(self._ready_or_ended, deadline_s)
        except TimeoutError as error:
            raise TimeoutError(f"worker {self.name} is not ready; {self._tail()}") from error
        if self.process.poll() is not None:
            raise RuntimeError(f"worker {self.name} ended ({self.process.poll()}); {self._tail()}")
        return self

    def _ready_or_ended(self) -> bool:
        return self.process.poll() is not None or f"{self.name} ready." in self.log

    def _tail(self) -> str:
        return "its log:\n" + "\n".join(self.log.splitlines()[-LOG_LINES:])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal (SIGSTOP, SIGCONT ...) to the worker and all its children."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:  # the whole group has ended, so there is nothing to signal
                return

    def kill(self) -> None:
        """Kill the worker and its children with SIGKILL, as the loss of a host would."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_S)

    def terminate(self, deadline_s: float = STOP_S) -> None:
        """Request a warm shutdown (SIGTERM to the main process alone); then `kill`."""
        if self._process is None:
            return
        self._process.terminate()
        self.signal(signal.SIGCONT)  # a test may have left it stopped
        try:
            self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            print(f"worker {self.name} did not end within {deadline_s} s", file=sys.stderr)
        self.kill()


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def script(folder: Path, name: str, body: str) -> Path:
    """A shell script in the place of a program."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
