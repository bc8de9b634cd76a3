"""`chaos`: nothing is lost on real processes, what is wrong is found, and nothing stays behind."""

from __future__ import annotations

import re
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from multiagents.cli.errors import INTERRUPTED
from multiagents.lab.chaos.audit import BY_FAULTS, BY_ORDERS
from multiagents.lab.chaos.ledger import ABSORBED
from multiagents.lab.chaos.plan import ChaosPlan, FaultKind
from multiagents.lab.chaos.recovery import ALL_KILLS
from tests.support.command_line import NO_SERVER, cli
from tests.support.processes import ROOT, started, wait_for

PAGE = (ROOT / "docs" / "explanation" / "chaos.md").read_text(encoding="utf-8")
CALM = ("--kills", "0", "--pauses", "0", "--server-kills", "0", "--cuts", "0")
MISLEADING = {
    "CELERY_BROKER_URL": NO_SERVER,
    "MULTIAGENTS_WORKFLOWS": "no/such/folder",
    "MULTIAGENTS_IMPORTS": "no_such_module",
    "MULTIAGENTS_RETENTION_S": "0",
}
"""A user's own settings, none of which concerns the run."""
END_S = 40.0


def call(*options: object, **env: str) -> Any:
    return cli("chaos", *map(str, options), **{**MISLEADING, **env})


# ---- faults ----


@pytest.mark.processes
def test_nothing_is_lost_while_everything_is_killed() -> None:
    """Each kind of fault once, on prefork and threads; the command's own account of it."""
    asked = ("--kills", 3, "--pauses", 1, "--server-kills", 1, "--cuts", 1)
    done = call("--seconds", 5, "--sagas", 50, "--workers", 2, "--lease", 2, *asked, "--json")
    assert done.code == 0, done.out + done.err
    report = done.json
    assert (report["ok"], report["violations"]) == (True, [])
    assert report["faults"] == {kind.value: {"asked": 1, "done": 1} for kind in FaultKind}
    assert len(report["injected"]) == len(FaultKind)
    assert report["sagas"]["started"] == sum(report["sagas"]["states"].values()) == 50
    assert {"completed", "compensated"} <= report["sagas"]["states"].keys()
    assert report["absorbed"]["done again"][BY_ORDERS] > 0
    assert report["recovery"]["kill server"]["count"] > 0
    assert [name for name in report if f"`{name}`" not in PAGE] == []
    assert re.search(r"50 of 50 sagas started, 6 of 6 faults done", done.err)


# ---- what is wrong ----


def steal_and_double(path: Path) -> bool:
    """Take a cent from the shop, and note one effect a second time; False: nothing is there yet."""
    if not path.exists():
        return False
    db = sqlite3.connect(path, timeout=END_S, isolation_level=None)
    try:
        tables = "SELECT count(*) FROM sqlite_master WHERE name = 'journal'"
        row = "SELECT key, saga, step FROM journal WHERE what = 'done' LIMIT 1"
        if not db.execute(tables).fetchone()[0] or not db.execute(row).fetchone():
            return False
        db.execute(f"INSERT INTO journal (what, key, saga, step) SELECT 'done', * FROM ({row})")
        db.execute("UPDATE money SET cents = cents - 1 WHERE account = 'customer'")
    finally:
        db.close()
    return True


@pytest.mark.processes
def test_a_ledger_that_somebody_lays_hands_on_is_found(tmp_path: Path) -> None:
    """A fault planted beside real workers is reported, and the run exits with 1."""
    tamper = partial(steal_and_double, tmp_path / "run" / "ledger.sqlite")
    with ThreadPoolExecutor(1) as pool:
        planted = pool.submit(wait_for, tamper, END_S)
        small = ("--seconds", 1, "--sagas", 6, "--workers", 1, *CALM)
        done = call(*small, "--keep", tmp_path / "run")
        assert planted.result()
    assert done.code == 1, done.out + done.err
    for violation in ("money not conserved", "effect twice", "records disagree"):
        assert violation in done.out
    assert {"ledger.sqlite", "server"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_a_run_in_a_folder_that_holds_something_is_wrong_use(tmp_path: Path) -> None:
    """A ledger of another run would be counted in."""
    (tmp_path / "ledger.sqlite").touch()
    done = call("--keep", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert f"--keep {tmp_path} is not empty" in done.err


@pytest.mark.parametrize("options", [("--kills", -1), ("--workers", 0), ("--lease", 0.1), ("x",)])
def test_options_out_of_range_are_wrong_use(options: tuple[object, ...]) -> None:
    """Before anything is started."""
    done = call(*options)
    assert (done.code, done.out) == (2, "")


# ---- stopping ----


def lines_until(stream: Any, is_last: Callable[[str], bool]) -> None:
    """Read until a line that matches; the process's end is a failure."""
    while not is_last(line := stream.readline()):
        assert line, "the run ended before that"


@pytest.mark.processes
def test_a_run_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle of it, with a worker frozen: exit code 130, no process, no file."""
    faults = ("--kills", "0", "--pauses", "3", "--server-kills", "0", "--cuts", "0")
    options = ("--seconds", "300", "--sagas", "3000", "--workers", "2", "--lease", "100", *faults)
    with started("chaos", *options, folder=tmp_path) as process:
        lines_until(process.stderr, lambda line: "0 of 3000 sagas started" in line)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 6  # a server, prefork with three children, threads
        workers = [one for one in family if "celery" in " ".join(one.cmdline())]
        workers[0].suspend()
        process.send_signal(signal.SIGINT)
        assert process.wait(END_S) == INTERRUPTED
    wait_for(lambda: not any(one.is_running() for one in family), what="all processes to end")
    assert list(tmp_path.iterdir()) == []


# ---- the page ----


def test_the_page_names_every_option_with_its_default() -> None:
    """The page also names each kind of fault and each word of the tables."""
    plan, described = ChaosPlan(), cli("chaos", "--help").out
    named = {
        "--seconds": plan.seconds,
        "--sagas": plan.sagas,
        "--workers": plan.workers,
        "--kills": plan.kills,
        "--pauses": plan.pauses,
        "--server-kills": plan.server_kills,
        "--cuts": plan.cuts,
        "--seed": plan.seed,
        "--lease": plan.lease_s,
        "--settle": plan.settle_s,
    }
    assert [name for name, value in named.items() if f"| `{name}` | {value:g} |" not in PAGE] == []
    assert [name for name in (*named, "--keep", "--json") if name not in described] == []
    words = (*(kind.value for kind in FaultKind), ALL_KILLS, *ABSORBED, BY_FAULTS)
    assert [word for word in words if f"`{word}`" not in PAGE] == []


def test_the_run_that_counts_is_large_enough() -> None:
    """Ten minutes, 5,000 sagas, 50 kills, 10 pauses, 10 kills of the server: the page's line."""
    (words,) = re.findall(r"^multiagents chaos (--seconds 6\d\d .*)$", PAGE, re.MULTILINE)
    given = dict(re.findall(r"(--[a-z-]+) (\d+)", words))
    least = {"seconds": 600, "sagas": 5000, "kills": 50, "pauses": 10, "server-kills": 10}
    assert [name for name, count in least.items() if int(given[f"--{name}"]) < count] == []
