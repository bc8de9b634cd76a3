"""Is a saga's outcome delivered when the result backend is away, silent or broken at its end?"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from multiagents import SagaFailed
from multiagents.storage.server import EmbeddedServer
from tests.processes import wait_for
from tests.support.broken_backend import BROKEN
from tests.support.celery_rig import CeleryRig

pytestmark = pytest.mark.processes

DATABASE = 14
RETRIES = {"result_backend_always_retry": True, "result_backend_max_retries": 10}
"""What a team may have set to make its results safe: the engine must not wait so long."""
PROMPT_S = 6.0
"""Within which a worker with one child gets to the next saga's step."""
END_KEY = "o:end"


@pytest.fixture
def rig(server: EmbeddedServer, tmp_path: Path) -> Iterator[CeleryRig]:
    rig = CeleryRig(server.url, DATABASE, tmp_path)
    yield rig
    rig.close()


def outcomes(app: Celery, saga_ids: list[str]) -> list[Any]:
    """What clients that wait for these sagas get."""
    found: list[Any] = []
    for saga_id in saga_ids:
        try:
            found.append(app.AsyncResult(saga_id).get(timeout=20))
        except SagaFailed as error:
            found.append(error.state)
    return found


def is_owed(rig: CeleryRig, saga_id: str) -> bool:
    """Whether a saga's outcome still stands in its outbox."""
    return END_KEY in rig.open_ends(saga_id)


@contextmanager
def without(results: EmbeddedServer, how: str) -> Iterator[None]:
    """A time in which that server is not there, or does not answer."""
    if how == "silent":
        os.kill(results.pid, signal.SIGSTOP)
    else:
        results.kill()
    try:
        yield
    finally:
        if how == "silent":
            os.kill(results.pid, signal.SIGCONT)
        else:
            results.restart()


@pytest.mark.parametrize("how", ["away", "silent"])
def test_an_outcome_waits_for_its_backend(rig: CeleryRig, tmp_path: Path, how: str) -> None:
    """The saga ends, the worker goes on at once, and a sweep delivers when the server is back."""
    with (
        EmbeddedServer(tmp_path / "results") as results,
        rig.team("-c", "1", conf=RETRIES, TEAM_BACKEND=results.url) as worker,
    ):
        worker.wait_ready()
        with without(results, how):
            sagas = [rig.start("kp_completes"), rig.start("kp_breaks")]
            ends = [rig.wait_end(saga_id, PROMPT_S)["state"] for saga_id in sagas]
            assert ends == ["completed", "compensated"]
            assert [is_owed(rig, saga_id) for saga_id in sagas] == [True, True]
            wait_for(lambda: "outcome not stored" in worker.log, PROMPT_S, "a log line")
            sagas.append(rig.start("kp_flakes"))
            assert rig.wait_end(sagas[-1], PROMPT_S)["state"] == "completed"
        with Celery(broker=rig.url, backend=results.url, set_as_current=False) as client:
            told = outcomes(client, sagas)
        for saga_id in sagas:
            rig.wait_settled(saga_id)
    assert told == [{"two": 1}, "compensated", {"attempt": 3}]


def test_a_backend_that_raises_costs_no_step_its_success(rig: CeleryRig) -> None:
    """Any error of a backend leaves the step done and the outcome owed, until it works again."""
    url = rig.url.partition("://")[2]
    backend = f"tests.support.broken_backend:BrokenBackend+redis://{url}"
    rig.open(BROKEN)
    with rig.team("-c", "1", TEAM_BACKEND=backend) as worker:
        worker.wait_ready()
        sagas = [rig.start("kp_completes"), rig.start("kp_breaks")]
        ends = [rig.wait_end(saga_id)["state"] for saga_id in sagas]
        wait_for(lambda: "outcome not stored" in worker.log, PROMPT_S, "a log line")
        assert [is_owed(rig, saga_id) for saga_id in sagas] == [True, True]
        (rig.folder / BROKEN).unlink()
        told = outcomes(rig.app, sagas)
        runs = [len(rig.effects(saga_id, "run")) for saga_id in sagas]
    assert (ends, told) == (["completed", "compensated"], [{"two": 1}, "compensated"])
    assert runs == [2, 2]
