"""Is the comparison with peers sound: its table, its pins, and the peer without packages?"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bench.harness import WORKLOADS, Worker, run_batch
from bench.run import BEGIN, END, PAGE, PEERS, RESULTS, published
from bench.table import rows, to_csv, to_markdown
from tests.support.processes import ROOT, wait_for

MACHINE = {"date": "2026-01-02", "cores": 2}
REQUIREMENTS = [
    ROOT / "bench" / "plot-requirements.txt",
    *sorted((ROOT / "bench" / "peers").glob("*/requirements.txt")),
]


def line(peer: str, workload: str, number: int, rate: float, **more: Any) -> dict[str, Any]:
    """A line as a peer prints it and the runner records it."""
    return {
        "peer": peer,
        "variant": "default",
        "title": peer.title(),
        "version": "1.0",
        "workload": workload,
        "round": number,
        "steps_per_s": rate,
        "cpu_ms_per_step": 1000 / rate,
        "settings": "as they come",
        "guarantees": {"durable": "yes", "after_sigkill": "a | b", "compensation": "none"},
        **more,
    }


RECORDED = [
    line("celery", "chain10", 0, 100),
    line("celery", "chain10", 1, 400),
    line("celery", "chain10", 2, 200),
    line("other", "chain10", 0, 300),
    line("other", "chain10", 1, 400),
    line("other", "chain10", 2, 800),
    line("other", "fanout10", 0, 50),
]


def test_a_figure_is_the_median_of_the_rounds() -> None:
    """The smallest and largest round stand beside it, in any order of rounds."""
    _, other = rows(RECORDED)
    figure = other.figures["chain10"]
    assert (figure.low, figure.median, figure.high) == (300, 400, 800)


def test_a_ratio_compares_within_a_round() -> None:
    """The median of 3, 1 and 4 times the same round's chain is 3, not 400 / 200."""
    celery, other = rows(RECORDED)
    assert celery.figures["chain10"].ratio == 1
    assert other.figures["chain10"].ratio == 3


def test_a_workload_without_a_base_has_no_ratio() -> None:
    """A run with ``--only`` has figures without comparison."""
    (alone,) = rows([line("other", "chain10", 0, 50)])
    assert alone.figures["chain10"].ratio is None
    assert alone.figures["chain10"].cpu_ms == 20
    assert "| 50 (50–50) | – | – | 20.00 |" in to_markdown([alone], MACHINE)


def test_variants_of_a_peer_are_rows_of_their_own() -> None:
    """The rows follow the order of recording."""
    found = rows([line("a", "chain10", 0, 1), line("a", "chain10", 0, 2, variant="late")])
    assert [row.name for row in found] == ["a default", "a late"]


def test_the_csv_has_a_line_for_each_peer() -> None:
    """Figures, words and machine have columns; a missing run is empty, not zero."""
    celery, other = csv.DictReader(io.StringIO(to_csv(rows(RECORDED), MACHINE)))
    assert (other["chain10_steps_per_s"], other["chain10_ratio"]) == ("400.0", "3.0")
    assert (celery["fanout10_steps_per_s"], celery["chain100_max"]) == ("", "")
    assert (other["settings"], other["durable"], other["cores"]) == ("as they come", "yes", "2")


def test_the_markdown_is_one_whole_table() -> None:
    """Each line has equally many cells, and a bar in a text ends no cell."""
    text = to_markdown(rows(RECORDED), MACHINE)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {9}
    assert (
        "| Other 1.0 | 400 (300–800), 3.00 × | – | 50 (50–50) | 2.50 | yes | a \\| b | none |"
        in lines
    )
    assert "date 2026-01-02; cores 2" in text
    assert "- Other: as they come." in text


def test_a_table_replaces_the_last_one_on_the_page() -> None:
    """The text around the marks stays."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert published(page, "new\n") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["no marks", f"only {BEGIN}"])
def test_a_page_without_marks_is_refused(page: str) -> None:
    """A page without the table's place stays unchanged."""
    with pytest.raises(ValueError, match="no place for the table"):
        published(page, "new")


def test_the_documentation_shows_the_last_run() -> None:
    """The page has the table of the recorded lines, with every peer."""
    machine, *lines = map(json.loads, (RESULTS / "latest.jsonl").read_text().splitlines())
    table = (RESULTS / "latest.md").read_text()
    assert to_markdown(rows(lines), machine) == table
    assert published(PAGE.read_text(), table) == PAGE.read_text()
    assert {(line["peer"], line["variant"]) for line in lines} == set(PEERS)


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.parent.name)
def test_peers_are_pinned_exactly_and_name_no_address(path: Path) -> None:
    """Each has one version; each installation chooses its source."""
    pins = path.read_text().splitlines()
    assert pins
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []


def test_a_wrong_result_is_not_measured() -> None:
    """A peer that loses or changes results fails instead of being fast."""
    run_batch(lambda: lambda: {"n": 1, "ok": 1}, 2)
    with pytest.raises(ValueError, match="a run gave None"):
        run_batch(lambda: lambda: None, 1)


@pytest.mark.parametrize("variant", ["list", "continue"])
def test_the_raw_peer_measures_every_workload(redis_url: str, tmp_path: Path, variant: str) -> None:
    """The runner's call of a peer's script gives one JSON object per workload."""
    command = [sys.executable, "-m", "bench.peers.raw.run", "--redis", redis_url]
    command += ["--data", str(tmp_path), "--variant", variant, "--runs", "3", "--min-s", "0"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(text) for text in done.stdout.splitlines()]
    assert [said["workload"] for said in found] == list(WORKLOADS)
    assert [said["runs"] for said in found] == [3, 1, 3]
    assert all(said["steps_per_s"] > 0 for said in found)
    assert {"settings", "guarantees", "version"} <= found[0].keys()
    assert len(rows({**said, "round": 0} for said in found)) == 1


PARENT = """
import os, pathlib, signal
child = os.fork()
if child:
    pathlib.Path(__file__).with_suffix(".pids").write_text(f"{os.getpid()} {child}")
signal.pause()
"""


def test_a_killed_worker_is_replaced_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the first worker is left, so only the second one goes on."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "parent_of_one.py").write_text(PARENT)
    told = tmp_path / "parent_of_one.pids"
    running = Worker(["parent_of_one"], tmp_path / "log")
    try:
        first = wait_for(lambda: told.exists() and told.read_text().split())
        running.replace_by_force()
        second = wait_for(lambda: (now := told.read_text().split()) != first and now)
        wait_for(lambda: not any(map(_runs, first)))
        assert all(map(_runs, second))
    finally:
        running.stop()
        for pid in told.read_text().split():
            with suppress(ProcessLookupError):  # it ended with its parent
                os.kill(int(pid), signal.SIGKILL)


def _runs(pid: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
