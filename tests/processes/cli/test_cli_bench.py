"""`bench`: it measures both sides, reports without judging, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from bench.targets import TARGETS, Target, judged
from multiagents.cli.errors import INTERRUPTED
from multiagents.lab.bench import catalog, cpu, speed
from multiagents.lab.bench.arena import Arena, arena
from multiagents.lab.bench.growth import growth
from multiagents.lab.bench.job import Job
from multiagents.lab.bench.leases import leases
from multiagents.lab.bench.measurement import Measurement, MeasurementPlan, Pair, paired
from multiagents.lab.bench.recovery import recovery
from multiagents.lab.bench.shapes import Shape, chain_of, fan_of
from multiagents.lab.bench.speed import MakeShape, Measure, throughput
from multiagents.lab.bench.waiting import waiting
from multiagents.workflows.builder import WorkflowBuilder
from tests.support.command_line import NO_SERVER, cli
from tests.support.processes import ROOT, started, wait_for

PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
END_S = 40.0
ENDLESS = ("--rounds", "1000", "--scale", "0.02")
"""Small rounds, and more of them than end while a test waits."""
MISLEADING = {
    "CELERY_BROKER_URL": NO_SERVER,
    "CELERY_RESULT_BACKEND": NO_SERVER,
    "MULTIAGENTS_WORKFLOWS": "no/such/folder",
    "MULTIAGENTS_IMPORTS": "no_such_module",
}
"""A user's own settings, none of which concerns the bench."""


# ---- what figures mean ----


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    """Not the ratio of medians: a machine that slows down between rounds does not count."""
    found = paired([Pair(4, 1), Pair(2, 1), Pair(90, 30)], name="n", what="w", unit="u")
    assert (found.ratio, found.ratio_min, found.ratio_max) == (3, 2, 4)
    assert (found.saga, found.celery, found.rounds) == (4, 1, 3)


def test_nothing_is_divided_by_nothing() -> None:
    """There is no ratio if the other side took no measurable time."""
    assert paired([Pair(1, 0)], name="n", what="w", unit="u").ratio is None


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target(3), True),
        (Target(3.1), False),
        (Target(3, at_least=False), True),
        (Target(2.9, at_least=False), False),
        (Target(5, at_least=False, of="saga"), False),
        (Target(6, at_least=False, of="saga"), True),
    ],
)
def test_a_target_of_ours_is_met_at_its_limit(target: Target, met: bool) -> None:
    """Targets are of the median ratio, or of the saga's own figure; never with an error."""
    found = paired([Pair(6, 2)], name="n", what="w", unit="u").to_dict(MeasurementPlan())
    assert target.met(found) is met
    assert target.met({**found, "errors": {"saga": 1, "celery": 0}}) is False
    assert Target(1).met({**found, "ratio": None}) is None


def test_our_targets_are_of_figures_that_there_are() -> None:
    """A figure of that name, or a part of it."""
    assert {name.partition(".")[0] for name in TARGETS} <= set(catalog.NAMES)
    line = json.dumps(
        paired([Pair(6, 2)], name="chain10", what="w", unit="u").to_dict(MeasurementPlan())
    )
    assert judged([line]) == [("chain10: MISSED (ratio 3.0, wanted >= 4)", False)]


def test_a_measurement_is_json_with_its_settings() -> None:
    """Each line can be read alone; the page names every field."""
    found = paired([Pair(1, 3)], name="n", what="w", unit="u")
    facts = json.loads(
        json.dumps(found.to_dict(MeasurementPlan(appendfsync="always", events=True)))
    )
    assert facts["ratio"] == 0.3333
    assert (facts["appendfsync"], facts["events"], facts["concurrency"]) == ("always", True, 2)
    assert not facts.keys() & {"target", "met"}
    assert [name for name in facts if f"`{name}`" not in PAGE] == []


def test_the_page_and_the_help_name_every_measurement() -> None:
    """Both list every choice."""
    described = cli("bench", "--help").out
    assert [name for name in catalog.NAMES if not re.search(rf"\b{name}\b", described)] == []
    assert [name for name in catalog.NAMES if f"| `{name}` |" not in PAGE] == []


def test_what_takes_minutes_is_not_usual() -> None:
    """But can be had by name, and with everything else."""
    usual = {entry.name for entry in catalog.chosen(None)}
    everything = {entry.name for entry in catalog.chosen(None, everything=True)}
    assert everything - usual == {"waiting", "leases", "recovery"}
    assert [entry.name for entry in catalog.chosen("waiting, chain10")] == ["chain10", "waiting"]


def test_an_unknown_name_is_wrong_use() -> None:
    """The names that there are stand in the error."""
    done = cli("bench", "--only", "chain10,chain11")
    assert (done.code, done.out) == (2, "")
    assert "--only names chain11; known: chain10, plain10" in done.err


def test_processor_time_is_that_of_processes() -> None:
    """/proc and psutil agree; an ended process counts nothing."""
    process = psutil.Process()
    times = process.cpu_times()
    assert cpu.seconds(os.getpid()) == pytest.approx(times.user + times.system, abs=0.1)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert cpu.seconds(ended.pid) == 0


def test_descendants_are_found_at_any_depth() -> None:
    """A worker's children may have children."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as child:
        found = wait_for(lambda: cpu.descendants(child.pid), what="a grandchild")
        assert found == [grand.pid for grand in psutil.Process(child.pid).children()]
        assert {child.pid, *found} <= set(cpu.descendants(os.getpid()))


# ---- real measurements, tiny ----

PLAN = MeasurementPlan(rounds=2, scale=0.02, waiting=1000, minutes=0.05)


@pytest.fixture(scope="module")
def ready() -> Iterator[Arena]:
    """One arena for all small measurements."""
    with arena(PLAN) as made:
        yield made


def measured(measure: Measure, made: Arena, *, plan: MeasurementPlan = PLAN) -> list[Measurement]:
    """What a measure finds, after it has said something for every round."""
    said: list[str] = []
    found = measure(Job("job", "what", made, plan, said.append))
    assert len(said) >= plan.rounds
    return found


@pytest.mark.processes
@pytest.mark.parametrize(
    "make",
    [partial(chain_of, 2), partial(chain_of, 2, plain=True), partial(fan_of, 3)],
    ids=["chain", "plain", "fan"],
)
def test_both_sides_do_the_same_work(ready: Arena, make: MakeShape) -> None:
    """Both end without an error, and nothing of it is left to be done."""
    (found,) = measured(throughput(make, 100), ready)
    assert found.celery is not None
    assert min(found.saga or 0, found.celery) > 0
    assert found.errors == {"saga": 0, "celery": 0}
    ready.rest()
    assert ready.queued() == 0


@pytest.mark.processes
def test_processor_time_is_told_by_process(ready: Arena) -> None:
    """The parts add up to the whole, whose name comes first."""
    found = measured(speed.cpu(partial(chain_of, 2), 2000), ready)
    names = ["job", "job.main", "job.children", "job.server", "job.client"]
    assert [one.name for one in found] == names
    assert (found[0].saga or 0) > 0


@pytest.mark.processes
def test_growth_compares_sagas_with_sagas(ready: Arena) -> None:
    """A chain and a fan-out; nothing of Celery's is in the figures."""
    chain, fan = measured(growth(), ready)
    assert (chain.name, fan.name) == ("job.chain", "job.fan")
    assert [(one.celery, one.base is not None) for one in (chain, fan)] == [(None, True)] * 2
    assert chain.detail == {"small": 10, "large": 20}


@pytest.mark.processes
def test_leases_are_watched_while_all_children_burn() -> None:
    """Without a death no lease is lost; each step outlives its lease."""
    with arena(PLAN, workers=False) as alone:
        (found,) = measured(leases(lease_s=1, step_s=(1.2, 1.6)), alone)
    assert (found.saga, found.errors["saga"], found.unit) == (0, 0, "lost")
    assert found.detail["steps"] >= found.detail["children"] > found.detail["processors"]


@pytest.mark.alone
@pytest.mark.processes
def test_a_killed_workers_step_is_timed_until_it_begins_again() -> None:
    """To the claim of the next attempt, by who stands by: a lease and 2 s at most, by the median.

    One kill may meet a machine that is busy with other things; of three the median does not.
    """
    plan = replace(PLAN, rounds=3)
    with arena(plan, workers=False) as alone:
        (found,) = measured(recovery(lease_s=1), alone, plan=plan)
    assert 0.5 < found.detail["shortest_s"] <= found.saga <= found.detail["longest_s"]
    assert found.saga <= 1 + 2


def test_waiting_sagas_have_their_timers_before_the_worker_is_watched(ready: Arena) -> None:
    """As many as were asked for, and the worker has nothing else to do."""
    (found,) = measured(waiting(window_s=0.1), ready)
    assert found.detail["sagas"] == PLAN.many(PLAN.waiting)
    ready.rest()


@pytest.mark.processes
def test_work_that_fails_is_counted(ready: Arena) -> None:
    """An error is a figure, not the end of the bench."""
    workflow = WorkflowBuilder("failing").add_step("a", "bench_fail", retry=1).build()
    shape = Shape(1, workflow, chain_of(1).canvas)
    (found,) = measured(throughput(lambda: shape, 100), ready)
    assert found.errors == {"saga": 4, "celery": 0}
    assert "SagaFailed" in found.detail["first_error"]["saga"]


# ---- the command ----


@pytest.mark.processes
def test_the_bench_prints_an_object_for_each_figure() -> None:
    """This is the command on the pages; a user's own settings do not affect it."""
    words = ("--only", "chain10,latency,memory,start", "--rounds", "1", "--scale", "0.05")
    done = cli("bench", *words, "--json", **MISLEADING)
    assert done.code == 0, done.err
    found = {line["name"]: line for line in done.lines}
    assert list(found) == ["chain10", "latency", "start", "memory.flight", "memory.ended"]
    chain = found["chain10"]
    assert chain["ratio"] == pytest.approx(chain["saga"] / chain["celery"], rel=0.01)
    assert min(line["saga"] for line in found.values()) > 0
    assert {sum(line["errors"].values()) for line in found.values()} == {0}


@pytest.mark.processes
def test_the_bench_prints_a_table() -> None:
    """The table has the measurement, both sides and their ratio, without a verdict."""
    done = cli("bench", "--only", "start", "--rounds", "2", "--scale", "0.02", "--events")
    assert done.code == 0, done.err
    heads, row = done.out.splitlines()
    assert re.split(r"\s{2,}", heads.strip()) == [
        *("NAME", "WHAT", "SAGA", "CELERY", "RATIO (MIN TO MAX)", "ERRORS")
    ]
    assert re.search(r"starts/s +[\d.]+ \([\d.]+ to [\d.]+\) +-$", row.rstrip())
    assert "task events on" in done.err
    assert "start 2/2" in done.err


@pytest.mark.processes
def test_a_bench_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM ends its server and its workers, and is no success."""
    with started("bench", "--only", "chain10", *ENDLESS, folder=tmp_path) as process:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith("chain10 1/"):
            assert line, "the bench ended before its first round"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 7  # a server, two workers of two children each
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == INTERRUPTED
    wait_for(lambda: not any(one.is_running() for one in family), what="all processes to end")
    assert list(tmp_path.iterdir()) == []
