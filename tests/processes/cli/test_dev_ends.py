"""What does `dev` say when its worker or its server is killed, and beside another `dev`?

Two of them in one folder: the second joins the server of the first.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from multiagents.devserver.ports import free_port
from tests.processes.cli.test_cli_dev import bare, left_over
from tests.support.processes import wait_for

pytestmark = pytest.mark.processes
END_S = 60.0


class Dev:
    """One ``multiagents dev --json`` that is ready, and what it says at its end."""

    def __init__(self, folder: Path, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "multiagents", "dev", "--json", "--port", str(port)],
            cwd=folder,
            env=bare(MULTIAGENTS_IMPORTS="tests.support.cli_workers"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.said: list[str] = []

    def ends(self) -> int:
        """Its exit code, once it has ended by itself."""
        _, err = self.process.communicate(timeout=END_S)
        self.said = err.splitlines()
        return self.process.returncode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("devs")


@pytest.fixture(scope="module")
def devs(folder: Path) -> Iterator[tuple[Dev, Dev]]:
    """The first has lost its server, and the second its worker before."""
    with ExitStack() as stack:
        port = free_port()
        first = Dev(folder, port)
        stack.callback(first.process.kill)
        second = Dev(folder, port)
        stack.callback(second.process.kill)
        os.kill(second.facts["worker_pid"], signal.SIGKILL)
        assert second.ends() == 2
        os.kill(int((folder / ".multiagents" / "server.pid").read_text()), signal.SIGKILL)
        assert first.ends() == 2
        yield first, second


def test_a_second_dev_says_that_it_joins(devs: tuple[Dev, Dev]) -> None:
    """On the same port of the same folder, where only the first has started the server."""
    first, second = devs
    assert [first.facts["joined"], second.facts["joined"]] == [False, True]
    assert first.facts["redis_url"] == second.facts["redis_url"]


def test_a_killed_worker_is_said_to_be_killed(devs: tuple[Dev, Dev]) -> None:
    """Its own output cannot state that; `dev` also states what happens to its sagas."""
    assert devs[1].said[-1] == (
        "error: the worker was killed (SIGKILL); its sagas go on when dev runs again"
    )


def test_a_server_that_has_ended_ends_dev_in_one_line(devs: tuple[Dev, Dev], folder: Path) -> None:
    """Instead of a worker that tries to reach it for ever; nothing is left but the data."""
    line = "error: the server has ended; its sagas go on when dev runs again"
    assert devs[0].said[-1] == line
    wait_for(lambda: not left_over(folder), END_S, what="all processes to end")
