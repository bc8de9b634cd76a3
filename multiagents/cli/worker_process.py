"""How do `dev`, `demo`, `bench` and `chaos` run a real worker?

The worker is a subprocess, ``celery -A multiagents worker``, in its own session.  Ctrl-C in the
terminal reaches only the owner, which stops the worker in order.  No process outlives the block.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from multiagents.cli.errors import CommandError
from multiagents.cli.session import Session
from multiagents.cli.stop_signals import hurried
from multiagents.core.interrupts import held_back
from multiagents.core.names import DEFAULT_QUEUES
from multiagents.core.polling import until

READY_S = 60.0
"""The time for importing modules and connecting, also on a loaded machine."""
STOP_S = 10.0
"""The time for a warm shutdown; a step that does not end then is retried by the next worker."""
POLL_S = 0.05
LOG_LINES = 20
FOREIGN = (
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "MULTIAGENTS_STATE_URLS",
    "MULTIAGENTS_WORKFLOWS",
)
"""Variables that would make a worker use other servers and workflows."""


class WorkerProcess:
    """A worker with its children.  Its output goes to ``log``, or to this process's stderr."""

    def __init__(
        self,
        name: str,
        *,
        app: str = "multiagents",
        env: Mapping[str, str],
        options: tuple[str, ...] = (),
        queues: tuple[str, ...] | None = DEFAULT_QUEUES,
        cwd: Path | None = None,
        log: Path | None = None,
        program: tuple[str, ...] = ("celery",),
        stdin: int = subprocess.DEVNULL,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        """``program``: the module that is run as the Celery command, and its arguments."""
        self.hostname = f"{name}-{os.getpid()}@localhost"
        self._env = {**os.environ, **env}
        chosen = ("-Q", ",".join(queues)) if queues else ()
        self._command = [sys.executable, "-m", *program, "-A", app, "worker"]
        self._command += ["-n", self.hostname, *chosen, *options]
        self._cwd = cwd
        self._log = log
        self._stdin = stdin
        self._pass_fds = pass_fds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        output: IO[bytes] | int = sys.stderr.fileno() if self._log is None else self._log.open("wb")
        try:
            with held_back():
                self._process = subprocess.Popen(
                    self._command,
                    cwd=self._cwd,
                    env=self._env,
                    stdin=self._stdin,
                    stdout=output,
                    stderr=output,
                    pass_fds=self._pass_fds,
                    start_new_session=True,
                )
        finally:
            if not isinstance(output, int):
                output.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The worker's main process."""
        if self._process is None:
            raise CommandError(f"worker {self.hostname} is not started; use it in a with block")
        return self._process

    def wait_ready(self, session: Session) -> None:
        """Return once the worker has published its functions.  Raises CommandError if it ends."""
        self.wait_until(lambda: self.hostname in session.fleet(), time.monotonic() + READY_S)

    def wait_until(self, condition: Callable[[], bool], ends_at: float) -> None:
        """Return once the condition holds; ``ends_at`` by the monotonic clock.

        Raises CommandError if the worker ends first, or at ``ends_at``.
        """

        def is_met() -> bool:
            if condition():
                return True
            if self.process.poll() is not None:
                raise self.ended()
            return False

        if not until(is_met, ends_at - time.monotonic(), poll_s=POLL_S):
            raise CommandError(f"the worker is not ready after {READY_S:g} s{self.tail()}")

    def ended(self) -> CommandError:
        """The error of a worker that ended by itself."""
        code = self.process.poll() or 0
        if code < 0:
            name = signal.Signals(-code).name
            return CommandError(f"the worker was killed ({name}){self.tail()}")
        return CommandError(f"the worker ended with exit code {code}{self.tail()}")

    @property
    def was_killed(self) -> bool:
        """Whether a signal has ended it; its output then shows no reason."""
        return self._process is not None and (self._process.poll() or 0) < 0

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def leave(self) -> None:
        """Begin a warm shutdown: the worker claims no more steps, and running ones end."""
        if self._process is not None:
            self._process.terminate()

    def stop(self, within_s: float = STOP_S) -> None:
        """Stop it by a warm shutdown, then by SIGKILL; a second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        until(lambda: process.poll() is not None or hurried(), within_s, poll_s=POLL_S)
        process.kill()
        process.wait()
        _kill_group(process.pid)

    def kill(self) -> None:
        """Kill it with its children, as the loss of a host would; a second call does nothing."""
        process, self._process = self._process, None
        if process is not None:
            _kill_group(process.pid)
            process.wait()

    def tail(self) -> str:
        """The end of the log, which has the reason, as the tail of a message."""
        if self._log is None:
            return "" if self.was_killed else "; see its output above"
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return f"; the end of its log: {' | '.join(line for line in lines if line.strip())}"


def isolate(stack: ExitStack, url: str) -> None:
    """Until the stack ends, use only ``url``, and none of the user's Celery settings or workflows.

    Celery prefers these variables to any celeryconfig.py.
    """
    before = dict(os.environ)
    stack.callback(os.environ.update, before)
    stack.callback(os.environ.clear)
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url, MULTIAGENTS_REDIS_URL=url)


def _kill_group(pid: int) -> None:
    """Kill the children that outlived their parent."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # none did
        return
