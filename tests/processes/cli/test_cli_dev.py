"""`dev` and `demo`: they begin with nothing, and leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from multiagents.core.clock import SystemClock
from multiagents.core.ports import WorkerInfo
from multiagents.engine.catalog import Catalog
from multiagents.storage.client import Edge
from tests.support.command_line import NO_SERVER, cli
from tests.support.pages import blocks
from tests.support.processes import ROOT, wait_for

pytestmark = pytest.mark.processes

UNSET = ("MULTIAGENTS_REDIS_URL", "MULTIAGENTS_LM", "MULTIAGENTS_LM_API_BASE")
MISLEADING = {
    "MULTIAGENTS_REDIS_URL": NO_SERVER,
    "CELERY_BROKER_URL": NO_SERVER,
    "CELERY_RESULT_BACKEND": NO_SERVER,
    "MULTIAGENTS_WORKFLOWS": "no/such/folder",
    "MULTIAGENTS_IMPORTS": "no_such_module",
}
"""A user's own settings, none of which concerns the demo."""
END_S = 30.0
ONE = """
from multiagents import WorkflowBuilder, worker

@worker("one.feed")
def feed(context):
    return {}

WorkflowBuilder("zoo").add_step("feed", "one.feed").build().register()
WorkflowBuilder("typo").add_step("feed", "one.fed").build().register()
"""

Dev = Callable[..., subprocess.Popen[str]]


def bare(**more: str) -> dict[str, str]:
    """An environment that names no server and no model."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def listens(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((parts.hostname, parts.port)) == 0


def left_over(folder: Path) -> list[str]:
    """Processes that still have to do with this folder, by working directory or command."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [process.cwd(), *process.cmdline()]
        except psutil.Error:
            continue
        if any(str(folder) in word for word in words):
            found.append(" ".join(words))
    return found


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """Starts ``multiagents dev`` in a folder of its own; ends it after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "multiagents", "dev", "--port", "0", *words],
            cwd=tmp_path,
            env=bare(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if "--json" not in words else subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=END_S)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_dev_runs_sagas_until_it_is_stopped(dev: Dev, tmp_path: Path, sign: signal.Signals) -> None:
    """Server, worker and stub end with it; only the data stays."""
    process = dev("--json", MULTIAGENTS_IMPORTS="tests.support.cli_workers")
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    assert "greeting" in facts["workflows"]
    assert facts["stub_model"] is True
    done = cli("start", "greeting", "--wait", "--json", url=facts["redis_url"])
    assert (done.code, done.json["state"]) == (0, "completed")
    process.send_signal(sign)
    assert process.wait(END_S) == 0
    wait_for(lambda: not left_over(tmp_path), what="all processes to end")
    assert not psutil.pid_exists(facts["worker_pid"])
    assert not listens(facts["redis_url"])
    assert (tmp_path / ".multiagents").is_dir()


def test_dev_has_a_start_command_for_its_own_module(dev: Dev, tmp_path: Path) -> None:
    """Workflows that others published have none; without an example nothing starts by accident.

    When the module changes, a pool's worker is replaced, too.
    """
    (tmp_path / "one.py").write_text(ONE)
    process = dev("--json", MULTIAGENTS_IMPORTS="one", PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    assert (facts["workflows"], facts["functions"]) == (["zoo", "typo"], ["one.feed"])
    assert facts["missing"]["one.fed"].startswith("workflow 'typo' (one.py:9) cannot be started")
    assert (facts["pool"], facts["queues"]) == ("prefork", ["io", "llm"])
    words = shlex.split(facts["start"].partition("  #")[0])
    given = words[words.index("--input") + 1]
    refused = cli("start", "zoo", "--input", given, url=facts["redis_url"])
    assert refused.code == 2
    assert "is not JSON" in refused.err

    def fed() -> Any:
        return cli("start", "zoo", "--wait", "--json", url=facts["redis_url"]).json["result"]

    assert fed() == {}
    (tmp_path / "one.py").write_text(ONE.replace("{}", "{'fed': 2}"))
    wait_for(lambda: fed() == {"fed": 2}, END_S, what="the new code to run")


@pytest.mark.parametrize("moment", ["server.json", "server.pid"])
def test_ctrl_c_while_dev_starts_leaves_nothing_behind(
    dev: Dev, tmp_path: Path, moment: str
) -> None:
    """Whether the server is just being started, or the worker."""
    process = dev(MULTIAGENTS_IMPORTS="tests.support.cli_workers")
    wait_for((tmp_path / ".multiagents" / moment).exists, END_S, what=moment)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=END_S)
    assert (process.returncode, out) == (0, "")
    assert err.splitlines()[-1].startswith("stopped")
    assert "Traceback" not in err
    wait_for(lambda: not left_over(tmp_path), what="all processes to end")


def test_dev_says_at_once_that_it_starts(dev: Dev, tmp_path: Path) -> None:
    """Before it imports anything of the user's; Ctrl-C in that time stops it in order."""
    slow = "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(60)\n"
    (tmp_path / "slow.py").write_text(slow)
    process = dev(MULTIAGENTS_IMPORTS="slow", PYTHONPATH=f"{ROOT}:{tmp_path}")
    wait_for((tmp_path / "importing").exists, END_S, what="the import to begin")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=END_S)
    assert (process.returncode, out) == (0, "")
    assert err.splitlines() == ["starting a server and a worker …", "stopped"]


def test_a_closed_terminal_stops_dev_in_order(dev: Dev, tmp_path: Path) -> None:
    """It cannot print that any more."""
    process = dev(MULTIAGENTS_IMPORTS="tests.support.cli_workers")
    assert process.stdout is not None
    assert process.stderr is not None
    while "Ctrl-C stops" not in process.stdout.readline():
        assert process.poll() is None
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(END_S) == 0
    wait_for(lambda: not left_over(tmp_path), what="all processes to end")
    process.stderr = None  # what the fixture reads


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    """No log of a server, and nothing is left behind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("dev", "--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "starting a server and a worker …\n"
        f"error: port {port} is taken (by another dev here?); choose another with --port, or 0\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_named_server_that_is_away_is_not_waited_for() -> None:
    """The remedy is not the one of other commands, which advise `dev`."""
    done = cli("dev", url=NO_SERVER)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "starting a worker …\n"
        f"error: no server answers at {NO_SERVER} (connection refused);"
        " unset MULTIAGENTS_REDIS_URL, and dev starts its own\n"
    )


def test_dev_says_why_its_worker_ended(dev: Dev, tmp_path: Path) -> None:
    """A module that fails only there ends the command, with nothing left behind."""
    fails = "import sys\nif 'worker' in sys.argv:\n    raise RuntimeError('only here')\n"
    (tmp_path / "dev_fails.py").write_text(fails)
    process = dev(MULTIAGENTS_IMPORTS="dev_fails")
    out, err = process.communicate(timeout=END_S)
    assert (process.returncode, out) == (2, "")
    wanted = "error: MULTIAGENTS_IMPORTS: module 'dev_fails' cannot be imported: dev_fails.py:3"
    assert [line for line in err.splitlines() if line.startswith(wanted)]
    assert err.splitlines()[-1].startswith("error: the worker ended with exit code 2")
    wait_for(lambda: not left_over(tmp_path), what="all processes to end")


def test_dev_names_who_works_on_its_server_already(tmp_path: Path, redis_url: str) -> None:
    """They share its queues: which functions they lack, and which this worker lacks."""
    catalog, edge = Catalog(SystemClock()), Edge(redis_url)
    for name in ("their_function", "cli.greet"):
        catalog.add_local(WorkerInfo(name))
    edge.run(catalog.publish("other@host", ["io"], []))
    edge.close()
    process = subprocess.Popen(
        [sys.executable, "-m", "multiagents", "dev", "--json"],
        cwd=tmp_path,
        env=bare(MULTIAGENTS_REDIS_URL=redis_url, MULTIAGENTS_IMPORTS="tests.support.cli_workers"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        (other,) = json.loads(process.stdout.readline())["others"]
    finally:
        process.terminate()
        process.communicate(timeout=END_S)
    assert other["hostname"] == "other@host"
    assert other["brings"] == ["their_function"]
    assert "cli.greet" not in other["lacks"]
    assert other["lacks"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """What ``multiagents demo --json`` gave, in an empty folder, in an unfit environment."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "multiagents", "demo", "--json"],
        cwd=folder,
        env=bare(TMPDIR=str(folder), **MISLEADING),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    wait_for(lambda: not left_over(folder), what="all processes to end")
    return done


def test_the_demo_succeeds_once_and_is_undone_once(
    demo: subprocess.CompletedProcess[str],
) -> None:
    """Money and goods move in the first order and are put back in the second."""
    report = json.loads(demo.stdout)
    works, fails = report["runs"]
    assert (works["saga"]["state"], fails["saga"]["state"]) == ("completed", "compensated")
    assert works["shop_before"]["money"] == {"customer": 10_000, "shop": 0}
    assert works["shop_after"]["money"] == {"customer": 6_020, "shop": 3_980}
    assert works["shop_after"]["stock"] == {"A1": 8}
    assert (works["shop_after"]["shipments"], works["shop_after"]["mails"]) == (1, 1)
    assert fails["shop_before"] == fails["shop_after"] == works["shop_after"]
    assert report["stub_model"] is True


def test_the_demos_second_order_had_really_charged(
    demo: subprocess.CompletedProcess[str],
) -> None:
    """The payment was accepted before the shipping failed twice; undo runs backward."""
    events = json.loads(demo.stdout)["runs"][1]["history"]
    order = [(event["type"], event["step"]) for event in events]
    assert order.index(("step_succeeded", "charge")) < order.index(("step_failed", "ship"))
    assert order.count(("step_failed", "ship")) == 2
    undone = [step for kind, step in order if kind == "undo_succeeded"]
    assert undone == ["ship", "charge", "reserve"]


def test_the_demo_prints_timelines_and_balances(tmp_path: Path) -> None:
    """The output has both orders, the shop's balances before and after, and a note about the stub.

    README shows lines of the second order, in their order.
    """
    done = subprocess.run(
        [sys.executable, "-m", "multiagents", "demo"],
        cwd=tmp_path,
        env=bare(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("completed", "compensated", "undone", "shop's money", "39.80 EUR", "a stub"):
        assert words in done.stdout
    told = done.stdout.partition("\nnext: ")[2]
    assert "\n  MULTIAGENTS_IMPORTS=shop multiagents dev\n" in told
    printed = iter(_timeless(done.stdout.partition("\n2. ")[2]))
    (picture,) = (each for each in blocks(ROOT / "README.md") if each.directives.get("made"))
    assert [line for line in _timeless(picture.text) if line not in printed] == []


def _timeless(text: str) -> list[str]:
    """Its lines without the times; the widths of columns do not count."""
    lines = (re.sub(r"^\d+\.\d\d s", "TIME", line) for line in text.splitlines())
    return [" ".join(line.split()) for line in lines]
