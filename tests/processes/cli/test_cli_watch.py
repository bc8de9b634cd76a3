"""Is a saga followed until its end, by a person or a program?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import cli
from tests.support.gated import start_gated
from tests.support.processes import ROOT, environment
from tests.support.terminal import CTRL_C, OnTerminal

pytestmark = pytest.mark.processes


def test_watch_prints_a_line_per_change_until_the_end(url: str, gate: Path) -> None:
    """Progress and notes of heartbeats show; the last line is the ended saga."""
    saga_id = start_gated(url, gate)
    with subprocess.Popen(
        [sys.executable, "-m", "multiagents", "watch", saga_id, "--json"],
        env=environment(url),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        gate.touch()
        rest = [json.loads(line) for line in watching.stdout]
    assert watching.returncode == 0
    assert first["steps"]["second"]["progress"] == {"progress": 0.4, "note": "page 4/10"}
    assert rest[-1]["state"] == "completed"
    assert all(one != other for one, other in zip([first, *rest], rest, strict=False))


def test_watch_without_a_terminal_prints_plain_lines(url: str, gate: Path) -> None:
    """The output has a line for each changed step, and the saga's end."""
    gate.touch()
    saga_id = cli("start", "gated", "-i", json.dumps({"gate": str(gate)}), url=url).out.strip()
    lines = cli("watch", saga_id, url=url).out.splitlines()
    assert lines[-1] == f"saga {saga_id} completed"
    assert any(line.startswith("second succeeded (attempt 1)") for line in lines)


def test_start_that_waits_on_a_terminal_is_watch_and_ctrl_c_ends_only_the_waiting(
    url: str, gate: Path
) -> None:
    """The id first, then the table that changes; at Ctrl-C how to follow it, and exit code 130."""
    given = json.dumps({"gate": str(gate)})
    with OnTerminal("start", "gated", "-i", given, "--wait", url=url) as terminal:
        terminal.shows("40% page 4/10")
        first = terminal.text.splitlines()[0]
        saga_id = first.removeprefix("saga ")
        assert first == f"saga {saga_id}"
        assert len(saga_id) == 36
        assert "first   succeeded  1" in terminal.text
        terminal.press(CTRL_C)
        assert terminal.ends() == 130
        assert terminal.text.splitlines()[-1] == f"it goes on: multiagents watch {saga_id}"
    assert cli("show", saga_id[:8], "--json", url=url).json["state"] == "running"
    with OnTerminal("watch", saga_id[:8], url=url) as terminal:
        terminal.shows("40% page 4/10")
        terminal.press(CTRL_C)
        assert terminal.ends() == 130
        assert terminal.text.splitlines()[-1] == f"it goes on: multiagents watch {saga_id}"
    gate.touch()
    assert cli("watch", saga_id, url=url).code == 0


def test_start_that_waits_on_a_terminal_ends_with_the_saga_whole(url: str) -> None:
    """Results of the steps included, in lines of at most 80 columns."""
    with OnTerminal("start", "greeting", "--wait", url=url) as terminal:
        assert terminal.ends() == 0
        last = terminal.text.rpartition("saga      ")[2].splitlines()
    assert '  result {"greeting": "Hello you"}' in last
    assert [line for line in last if len(line) > 80] == []


def test_the_id_comes_first_on_stderr_where_the_answer_is_piped(url: str) -> None:
    """Stdout has the saga alone."""
    done = cli("start", "greeting", "--wait", "--json", url=url)
    assert done.err == f"saga {done.json['transaction_id']}\n"
