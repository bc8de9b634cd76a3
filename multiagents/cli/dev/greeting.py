"""What does `multiagents dev` print when all is ready?

The running parts and the next commands, each command on its own line.  Pure.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiagents.cli.dev.process import Wish
from multiagents.cli.dev.report import WorkerReport
from multiagents.cli.errors import masked
from multiagents.cli.model import STUB
from multiagents.core.places import shown_path
from multiagents.core.settings import DEFAULT_REDIS_URL
from multiagents.core.texts import some_of

WIDTH = 80
MOST_NAMES = 8
YOUR_INPUT = "'{…}'"
"""A placeholder for an unknown input.  It is not JSON, so it starts nothing if it is run."""
_LABEL = 12


@dataclass(frozen=True, slots=True)
class DevServer:
    """The server that `dev` uses."""

    url: str
    data_dir: Path | None
    """None: `dev` does not run the server."""
    joined: bool = False
    """Another `dev` in this folder runs the server already."""


def block(place: DevServer, wish: Wish, report: WorkerReport, *, stub: bool, seconds: float) -> str:
    """The whole text."""
    facts = [
        ("server", f"{masked(place.url)}, {_data(place)}"),
        ("worker", _worker(wish, report)),
        ("functions", _some(sorted(report.functions))),
        ("workflows", _some(report.workflows)),
    ]
    if stub:
        facts.append(("model", STUB))
    facts.append(("reload", _reload(wish)))
    lines = [f"\nready after {seconds:.1f} s"]
    lines += [_fact(name, text) for name, text in facts]
    lines += [_fact("missing", text) for text in report.missing.values()]
    if not report.functions:
        lines.append(
            "name the modules with your workers in MULTIAGENTS_IMPORTS, and start this again"
        )
    lines.append("\nIn another terminal:")
    lines += [f"  {line}" for command in _commands(place, report) for line in command.split("\n")]
    lines.append(f"\n{_end(place)}")
    return "\n".join(lines)


def _end(place: DevServer) -> str:
    """The effect of Ctrl-C."""
    if place.data_dir is None:
        return "Ctrl-C stops the worker; the server keeps running."
    if place.joined:
        return "Ctrl-C stops this worker; the server goes on as long as another dev here uses it."
    return "Ctrl-C stops the server and the worker."


def start_command(report: WorkerReport, program: str = "") -> str:
    """The command that starts the first example of a workflow, on one or two lines.

    Without any example it has a placeholder for the input, and starts nothing as it is.
    ``program``: the words that call this command; by default those of the user's shell.
    """
    name, example = _first(report)
    words = f"{program or _program()} start {shlex.quote(name)}"
    if example is None:
        return f"{words} --input {YOUR_INPUT} --wait  # your input"
    given = f"--input {shlex.quote(json.dumps(example, ensure_ascii=False))} --wait"
    whole = f"{words} {given}"
    return whole if len(whole) <= WIDTH - 2 else f"{words} \\\n  {given}"


def _first(report: WorkerReport) -> tuple[str, dict[str, Any] | None]:
    for name, examples in report.workflows.items():
        if examples:
            return name, examples[0]
    return next(iter(report.workflows), "WORKFLOW"), None


def _commands(place: DevServer, report: WorkerReport) -> list[str]:
    found = [start_command(report), f"{_program()} list", f"{_program()} watch ID"]
    if place.url != DEFAULT_REDIS_URL:
        found.insert(0, f"export MULTIAGENTS_REDIS_URL={shlex.quote(masked(place.url))}")
    return found


def _program() -> str:
    """The words that call this command in the user's shell."""
    if shutil.which("multiagents"):
        return "multiagents"
    called = Path(sys.argv[0])
    if called.name == "multiagents":
        return shlex.quote(shown_path(str(called)))
    return f"{shlex.quote(shown_path(sys.executable))} -m multiagents"


def _fact(name: str, text: str) -> str:
    first = f"  {name}".ljust(_LABEL)
    return textwrap.fill(
        f"{first} {text}",
        WIDTH,
        subsequent_indent=" " * (_LABEL + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _data(place: DevServer) -> str:
    if place.data_dir is None:
        return "from MULTIAGENTS_REDIS_URL"
    shared = "of another dev here, " if place.joined else ""
    return f"{shared}data in {shown_path(str(place.data_dir))}"


def _worker(wish: Wish, report: WorkerReport) -> str:
    slots = "1 step" if report.slots == 1 else f"{report.slots} steps"
    return f"pool {wish.pool}, {slots} at once, queues {', '.join(report.queues)}"


def _some(names: Iterable[str]) -> str:
    return some_of(names, MOST_NAMES) or "none"


def _reload(wish: Wish) -> str:
    return "a changed file restarts the worker" if wish.reload else "off"
