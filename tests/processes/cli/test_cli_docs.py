"""Is docs/reference/cli.md true?  `dev` runs its module, a shell its commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import cli
from tests.support.processes import ROOT

pytestmark = pytest.mark.processes

PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def commands() -> list[tuple[str, int]]:
    """Each command of the page with the exit code that the page promises."""
    found = []
    for line in "".join(blocks("console")).splitlines():
        command, _, note = line.removeprefix("$ ").partition("   # exit code ")
        found.append((command, int(note or 0)))
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the page's second terminal has, while `dev` runs in its first."""
    (module,) = blocks("python")
    (tmp_path / "shop.py").write_text(module)
    (tmp_path / "multiagents").write_text(f'#!/bin/sh\nexec {sys.executable} -m multiagents "$@"\n')
    (tmp_path / "multiagents").chmod(0o755)
    given = {
        **os.environ,
        "MULTIAGENTS_IMPORTS": "shop",
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
    }
    given.pop("MULTIAGENTS_REDIS_URL", None)
    dev = subprocess.Popen(
        ["multiagents", "dev", "--port", "0", "--json"],
        cwd=tmp_path,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert dev.stdout is not None
        line = dev.stdout.readline()
        assert line, "dev ended before it was ready"
        yield {**given, "MULTIAGENTS_REDIS_URL": json.loads(line)["redis_url"]}
    finally:
        dev.terminate()
        dev.communicate(timeout=30)


def test_every_command_of_the_page_does_what_it_says(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """One shell runs them in the page's order; each gives the exit code beside it."""
    steps = [
        f"{command}\ncode=$?; [ $code = {code} ] || {{ echo FAILED: $code; exit 9; }}"
        for command, code in commands()
    ]
    done = subprocess.run(
        ["bash", "-xc", "\n".join(steps)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"


def test_the_page_names_every_command() -> None:
    """A command that is not on the page is not there."""
    named = set(re.findall(r"^│ ([a-z]+) ", cli("--help").out, re.MULTILINE))
    assert {"start", "doctor", "workflows"} <= named
    assert [name for name in sorted(named) if not re.search(rf"\b{name}\b", PAGE)] == []


def test_the_page_names_every_check(redis_url: str) -> None:
    """The doctor's table is complete."""
    listed = [line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| ")]
    names = [check["name"] for check in cli("doctor", "--json", url=redis_url).json["checks"]]
    assert [name for name in names if name not in listed] == []
