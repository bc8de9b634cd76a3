"""What ends the processes of a test run that was killed?

A run that ends by SIGTERM or SIGKILL unwinds nothing, so its workers and servers would stay.
`guard` starts a process that outlives the run, waits for its end and kills every process with its
mark, an environment variable that all processes of the run inherit.  (PR_SET_PDEATHSIG would not
help: it fires when the *thread* that started a process ends, and for no grandchild.)

    python watcher.py PID MARK
"""

from __future__ import annotations

import os
import sys
import threading
import time
from uuid import uuid4

import psutil

MARK = "TESTS_OF_RUN"
LOOK_S = 0.5
"""The interval between looks whether the run still exists."""
SETTLE_S = 5.0
"""The search for processes that others have just started lasts this long."""


def guard() -> None:
    """Let the processes that this one starts end with it, whatever its end."""
    os.environ[MARK] = mark = uuid4().hex
    command = [sys.executable, "-P", __file__, str(os.getpid()), mark]
    env = {name: text for name, text in os.environ.items() if name != MARK}
    silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    # It has its own session, so a signal to the run's group does not reach it.
    os.posix_spawn(sys.executable, command, env, file_actions=silent, setsid=True)


def watch(pid: int, mark: str) -> None:
    """Return once the run is over and none of its processes is left."""
    pause = threading.Event()
    while os.getppid() == pid:
        pause.wait(LOOK_S)
    ends_at = time.monotonic() + SETTLE_S
    while (left := _marked(mark)) and time.monotonic() < ends_at:
        for process in left:
            _kill(process)
        pause.wait(LOOK_S)


def _marked(mark: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if _environment(each).get(MARK) == mark]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except psutil.Error:  # gone, dead and not yet waited for, or another user's
        return {}


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:  # it ended on its own
        return


if __name__ == "__main__":
    watch(int(sys.argv[1]), sys.argv[2])
