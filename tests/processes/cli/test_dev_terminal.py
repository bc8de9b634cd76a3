"""`dev` in a terminal: what it says, `breakpoint()`, and code that changes while it runs.

One `dev` for all: a pseudo-terminal, a worker with ``--pool solo``, a module of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from multiagents.devserver.server import EmbeddedServer
from tests.support.command_line import Done, cli
from tests.support.processes import ROOT, wait_for
from tests.support.terminal import OnTerminal

pytestmark = pytest.mark.processes

SHOP = """
import logging

from multiagents import NonRetryableError, WorkflowBuilder, worker


@worker("shop.greet")
def greet(context):
    print("hello", None)
    logging.getLogger("shop").info("greeting %s", context["name"])
    return {"greeting": "GREETING"}


@worker("shop.refuse")
def refuse(context):
    raise NonRetryableError("no such guest")


@worker("shop.look")
def look(context):
    seen = context["name"]
    breakpoint()
    return {"seen": seen}


(WorkflowBuilder("visit", examples=[{"name": "it's Ada"}])
    .add_step("greet", "shop.greet").build().register())
(WorkflowBuilder("refused").add_step("greet", "shop.greet", compensation="shop.greet")
    .add_step("refuse", "shop.refuse").build().register())
(WorkflowBuilder("looked").add_step("look", "shop.look").add_step("greet", "shop.greet")
    .build().register())
"""
SLOW_S = 60.0


def unbroken(text: str) -> str:
    """The words with one blank between each two."""
    return " ".join(text.split())


class Terminal(OnTerminal):
    """What stands on the screen of a `dev`, and its keyboard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = folder / "shop.py"
        self.write_module("Hello")
        env = {**os.environ, "PYTHONPATH": str(ROOT), "MULTIAGENTS_IMPORTS": "shop"}
        env.pop("MULTIAGENTS_REDIS_URL", None)
        super().__init__("dev", "--port", "0", "--pool", "solo", env=env, cwd=folder)

    def __exit__(self, *raised: Any) -> None:
        """After a failed test it still runs; Ctrl-C twice ends its worker and its server too."""
        for _ in range(2):
            self.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(SLOW_S)
        super().__exit__(*raised)

    @property
    def screen(self) -> str:
        """All that was printed, without colours."""
        return self.text

    def type(self, text: str) -> None:
        self.press(text.encode())

    def wait(self, text: str, *, after: int = 0) -> str:
        """The screen, once the text stands there; ``after``: so many characters.

        A window breaks lines between words, by the length of what they name.
        """
        try:
            wait_for(lambda: text in unbroken(self.screen[after:]), SLOW_S, what=text)
        except TimeoutError:
            raise AssertionError(f"{text!r} is not said:\n{self.screen[after:]}") from None
        return self.screen

    def write_module(self, greeting: str) -> None:
        self.module.write_text(SHOP.replace("GREETING", greeting))

    @property
    def url(self) -> str:
        found = re.search(r"MULTIAGENTS_REDIS_URL=(\S+)", self.screen)
        assert found is not None
        return found[1]

    def start(self, workflow: str, *more: str) -> Done:
        name = '{"name": "Ada"}'
        return cli("start", workflow, "--input", name, "--json", *more, url=self.url)

    def run(self, workflow: str) -> dict[str, Any]:
        saga: dict[str, Any] = self.start(workflow, "--wait").json
        return saga


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A `dev` that is ready."""
    with Terminal(tmp_path_factory.mktemp("terminal")) as made:
        made.wait("Ctrl-C stops")
        yield made


def test_the_block_stands_last_and_its_start_command_works(terminal: Terminal) -> None:
    """The first example of a workflow of its own module, quoted, on lines of 80 columns at most."""
    told = terminal.screen
    block = told[told.index("ready after") :]
    assert "Warm" not in told
    assert "ready." not in told
    assert block.rstrip().endswith("Ctrl-C stops the server and the worker.")
    for fact in ("pool solo, 1 step at once", "queues io", "shop.greet, shop.look", "visit"):
        assert fact in block
    commands = [line.strip() for line in block.splitlines() if line.startswith("  ")]
    at = next(n for n, line in enumerate(commands) if line.startswith("export "))
    assert '--input \'{"name": "it\'"\'"\'s Ada"}\' --wait' in "\n".join(commands)
    pasted = "\n".join(commands[at:-2])
    done = subprocess.run(
        ["sh", "-c", pasted],
        cwd=terminal.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout


def test_each_step_event_is_one_line_and_prints_are_as_they_are(terminal: Terminal) -> None:
    """With workflow, short id and step; user's logging too; nothing of Celery's."""
    at = len(terminal.screen)
    saga_id = terminal.run("visit")["transaction_id"]
    told = terminal.wait("completed after", after=at)[at:]
    place = f"visit {saga_id[:8]}"
    lines = [re.sub(r"[\d.]+ s", "0 s", line) for line in told.strip().splitlines()]
    assert lines == [
        f"{place}  started",
        "hello None",
        f"{place}  greet  INFO shop: greeting Ada",
        f"{place}  greet  succeeded in 0 s",
        f"{place}  completed after 0 s",
    ]
    assert "\x1b[32msucceeded" in terminal.raw


def test_a_failed_step_is_told_with_the_users_own_line(terminal: Terminal) -> None:
    """No frame of the engine, no trace of Celery's, and what is undone for it."""
    at = len(terminal.screen)
    terminal.run("refused")
    told = terminal.wait("compensated after", after=at)[at:]
    number = 1 + SHOP[: SHOP.index("raise Non")].count("\n")
    assert f"refuse  failed: NonRetryableError: no such guest (shop.py:{number})" in told
    assert f'shop.py:{number}, in refuse\n        raise NonRetryableError("no such guest")' in told
    assert re.search(r"greet   undone in", told)
    assert "raised unexpected" not in told
    assert "site-packages" not in told
    assert "multiagents/" not in told


def test_breakpoint_takes_the_terminal(terminal: Terminal) -> None:
    """With a pool that runs steps in the worker itself, a debugger reads the keyboard."""
    at = len(terminal.screen)
    saga_id = terminal.start("looked").json["transaction_id"]
    terminal.wait("(Pdb)", after=at)
    terminal.type("p seen\n")
    terminal.wait("'Ada'", after=at)
    terminal.type("c\n")
    terminal.wait("completed after", after=at)
    assert cli("show", saga_id, "--json", url=terminal.url).json["state"] == "completed"


def test_changed_code_runs_and_broken_code_does_not_end_the_worker(terminal: Terminal) -> None:
    """The step at work ends with the old code, its saga goes on with the new.

    A file that cannot be read leaves the worker as it is.
    """
    at = len(terminal.screen)
    saga_id = terminal.start("looked").json["transaction_id"]
    terminal.wait("(Pdb)", after=at)
    terminal.write_module("Good morning")
    ends = "shop.py has changed: the worker restarts when the running step has ended"
    terminal.wait(ends, after=at)
    terminal.type("c\n")
    terminal.wait("ready again", after=at)
    terminal.wait("completed after", after=at)
    saga = cli("show", saga_id, "--json", url=terminal.url).json
    assert saga["result"] == {"greeting": "Good morning"}
    at = len(terminal.screen)
    terminal.module.write_text(SHOP.replace("return", "retrun", 1))
    terminal.wait(
        "shop.py:11: SyntaxError: invalid syntax: the worker keeps the old code", after=at
    )
    assert terminal.run("visit")["result"] == {"greeting": "Good morning"}
    at = len(terminal.screen)
    terminal.module.write_text("import no_such_module_at_all\n" + SHOP)
    terminal.wait("until a file is saved again", after=at)
    at = len(terminal.screen)
    terminal.write_module("Good evening")
    terminal.wait("ready again", after=at)
    assert terminal.run("visit")["result"] == {"greeting": "Good evening"}


def test_ctrl_c_twice_does_not_wait_for_a_step(terminal: Terminal) -> None:
    """Nor for a person at a debugger.  The last line says where the data stays.

    The last test of this file: it ends the `dev`.
    """
    at = len(terminal.screen)
    terminal.start("looked")
    terminal.wait("(Pdb)", after=at)
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait("stopping: a running step has 10 s to end", after=at)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(SLOW_S) == 0
    folder = terminal.folder / ".multiagents"
    last = f"stopped; the data stays in {folder}, and the next dev here goes on with it"
    assert unbroken(terminal.wait(last)).endswith(last)
    assert folder.is_dir()
    with EmbeddedServer(folder) as server:
        assert cli("workers", "--json", url=server.url).lines == []
