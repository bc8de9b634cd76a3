"""How do the tests start a worker process without the second that its imports cost?

A `Forker` is one process per test process.  It has imported what every worker imports, and it
forks for each start.  The fork becomes ``python -m celery ...``: session, environment, folder and
output are its own.  No import may read the environment or start a thread, so a fork differs from
a fresh process in nothing but its command line under /proc.

    python -m tests.support.forks SOCKET
"""

from __future__ import annotations

import ast
import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from celery import _state

from multiagents.core.settings import get_settings

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = (
    *("celery.bin.celery", "celery.apps.worker", "celery.app.amqp", "celery.app.control"),
    *("celery.app.events", "celery.app.log", "celery.app.trace", "celery.backends.redis"),
    *("celery.concurrency.prefork", "celery.concurrency.solo", "celery.concurrency.thread"),
    *("celery.worker.autoscale", "celery.worker.components", "celery.worker.consumer"),
    *("celery.worker.strategy", "celery.worker.worker", "celery.events.state"),
    *("kombu.transport.redis", "kombu.asynchronous.hub", "multiagents.transport.kombu_redis"),
)
"""What a worker of Celery imports before its app's own modules."""
RUNTIME = "multiagents.hosting.runtime"
"""Makes the package's app, from the environment: a fork imports it, with what it imports here."""
MESSAGE_BYTES = 1 << 20
INTERPRETERS = ("PYTHONPATH", "PYTHONWARNINGS", "PYTHONHASHSEED", "PYTHONTRACEMALLOC", "LD_PRELOAD")
"""Variables that Python reads at its start: a worker with others is no fork."""
PATCHED = frozenset({"gevent", "eventlet"})
"""Pools for which Celery patches the standard library before all imports."""
ANSWER_S = 60.0


class Forked:
    """A started process, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, forker: Forker) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._forker = forker

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None:
            self.returncode = self._forker.code_of(self.pid, 0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code.  Raises TimeoutExpired after ``timeout`` seconds."""
        if self.returncode is None:
            self.returncode = self._forker.code_of(self.pid, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process; nothing happens if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forker:
    """The process that forks, and what it has said of the processes that ended."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._ended: dict[int, int] = {}
        with theirs:
            theirs.set_inheritable(True)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forks", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._read(ANSWER_S)  # it is ready

    def start(self, words: Sequence[str], env: Mapping[str, str], log: Path) -> Forked:
        """Start ``python -m celery WORDS`` with this environment, which writes to ``log``."""
        asked = {"words": list(words), "env": dict(env), "log": str(log)}
        self._socket.send(json.dumps(asked).encode())
        while (pid := self._read(ANSWER_S).get("started")) is None:
            pass
        return Forked(pid, self)

    def code_of(self, pid: int, timeout_s: float | None) -> int | None:
        """The exit code of a process that has ended within that time."""
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        while pid not in self._ended:
            left = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return None
            self._read(ANSWER_S)
        return self._ended[pid]

    def _read(self, timeout_s: float) -> dict[str, Any]:
        self._socket.settimeout(timeout_s)
        text = self._socket.recv(MESSAGE_BYTES)
        if not text:
            raise RuntimeError("the process that forks workers has ended; see its traceback above")
        said: dict[str, Any] = json.loads(text)
        if "ended" in said:
            self._ended[said["ended"]] = said["code"]
        return said

    def close(self) -> None:
        """End the process; those that it started are left alone."""
        self._socket.close()
        self._process.wait(ANSWER_S)


@cache
def forker() -> Forker:
    """The one of this process."""
    made = Forker()
    atexit.register(made.close)
    return made


def may_fork(args: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether a fork does the same as a fresh process with these arguments and variables."""
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    same = all(env.get(name) == own.get(name) for name in INTERPRETERS)
    return same and not PATCHED & set(args)


# ---- in the process that forks ----


def preload() -> None:
    """Import what all workers import.  Raises if that has read the environment already."""
    for module in IMPORTS:
        import_module(module)
    spec = find_spec(RUNTIME)
    assert spec is not None
    assert spec.origin is not None
    lines = ast.parse(Path(spec.origin).read_text()).body
    own = [line for line in lines if isinstance(line, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(own, []), spec.origin, "exec"), {"__name__": RUNTIME})
    if _state.default_app is not None or get_settings.cache_info().currsize:
        raise RuntimeError("an import has made an app or read the settings, before the fork")
    gc.freeze()


def serve(channel: socket.socket) -> dict[str, Any]:
    """Fork for each message; return in each fork, with what it shall do."""
    awake, woken = os.pipe()
    for end in (awake, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _say(channel, ready=True)
    while True:
        readable, _, _ = select.select([channel, awake], [], [])
        if awake in readable:
            os.read(awake, 4096)
            _tell_ended(channel)
        if channel in readable:
            text = channel.recv(MESSAGE_BYTES)
            if not text:
                sys.exit(0)
            asked: dict[str, Any] = json.loads(text)
            if not _fork(channel):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(awake)
                os.close(woken)
                channel.close()
                return asked


def _fork(channel: socket.socket) -> int:
    """0 in the fork, which leads a session of its own before its id is told."""
    theirs, ours = os.pipe()
    pid = os.fork()
    if not pid:
        os.setsid()
        os.close(theirs)
        os.close(ours)
        return 0
    os.close(ours)
    os.read(theirs, 1)  # returns once the fork has closed its end
    os.close(theirs)
    _say(channel, started=pid)
    return pid


def _tell_ended(channel: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _say(channel, ended=pid, code=os.waitstatus_to_exitcode(status))


def _say(channel: socket.socket, **said: Any) -> None:
    channel.send(json.dumps(said).encode())


def become(asked: dict[str, Any]) -> None:
    """Run Celery's command line as a process that was started for it."""
    os.environ.clear()
    os.environ.update(asked["env"])
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    sys.argv[1:] = asked["words"]
    runpy.run_module("celery", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    preload()
    become(serve(socket.socket(fileno=int(sys.argv[1]))))
