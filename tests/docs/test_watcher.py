"""Does nothing stay behind when a test run is killed?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.processes import ROOT, wait_for
from tests.support.watcher import MARK

RUN = """
import subprocess, sys, threading
from pathlib import Path
from multiagents.devserver.server import EmbeddedServer
from tests.support.watcher import guard

guard()
sleep = [sys.executable, "-c", "import threading; threading.Event().wait(300)"]
grand = f"import subprocess; print(subprocess.Popen({sleep!r}).pid, flush=True)"
nested = [sys.executable, "-W", "ignore", "-c", grand]
child = subprocess.Popen(sleep, start_new_session=True)
print(child.pid, flush=True)
subprocess.run(nested, start_new_session=True)
print(EmbeddedServer(Path(sys.argv[1])).start().pid, flush=True)
threading.Event().wait(300)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_killed_run_has_started_ends_with_it(number: signal.Signals, tmp_path: Path) -> None:
    """This covers a child in its own session, an orphaned grandchild, and a server."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        started = [int(run.stdout.readline()) for _ in range(3)]
        run.send_signal(number)
    wait_for(lambda: not any(map(_runs, started)), 20, f"the end of {started}")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_this_very_run_is_guarded() -> None:
    """The conftest sets a mark that children inherit, and a process waits for the run's end."""
    assert os.environ[MARK]
    lines = map(_command_line, psutil.Process().children())
    assert len([line for line in lines if os.environ[MARK] in line]) == 1


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # another test's child that has ended
        return []
