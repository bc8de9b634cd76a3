"""Is a saga's outcome delivered when the result backend is away, silent or broken at its end?"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError

from multiagents import SagaFailed
from multiagents.devserver.server import EmbeddedServer
from multiagents.transport.async_result import Outcomes
from tests.support.broken_backend import BROKEN
from tests.support.celery_rig import CeleryRig
from tests.support.outage import without
from tests.support.processes import free_port, wait_for

pytestmark = pytest.mark.processes

RETRIES = {"result_backend_always_retry": True, "result_backend_max_retries": 10}
"""What a team may have set to make its results safe: the engine must not wait so long."""
PROMPT_S = 6.0
"""Within which a worker with one child gets to the next saga's step."""
END_KEY = "o:end"


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


def test_who_waits_names_the_backend_that_is_away(
    rig: CeleryRig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not the server of the sagas, which is well; ``get`` goes on when the backend is back."""
    told: list[Any] = []
    with (
        EmbeddedServer(tmp_path / "results") as results,
        rig.team("-c", "1", TEAM_BACKEND=results.url) as worker,
    ):
        rig.app.conf.result_backend = results.url
        worker.wait_ready()
        started = rig.runtime.start_saga.delay("kp_long", {"gates": {"1": "back"}})
        rig.wait_effect(started.id, "run", step="two")
        waiting = threading.Thread(target=lambda: told.append(started.get(timeout=60)))
        waiting.start()
        said = ""

        def names_one() -> bool:
            nonlocal said
            said += capfd.readouterr().out
            return f"waiting for saga {started.id}" in said

        with without(results, "away"):
            wait_for(names_one, 20.0, "the line that names a server")
        rig.open("back")
        waiting.join(30)
        assert rig.wait_settled(started.id)["state"] == "completed"
    assert told == [{"two": 1}]
    away = re.findall(r"no server answers at (\S+) ", said)
    assert away == [results.url]


def test_the_backend_is_named_without_its_secrets(rig: CeleryRig) -> None:
    """By its URL without user, password and options, or by the settings of its place."""
    port = free_port()
    rig.app.conf.result_backend = f"redis://me:s3cret@127.0.0.1:{port}/3?health_check_interval=9"
    result = rig.runtime.start_saga.delay("kp_completes", {})
    with pytest.raises(CeleryTimeoutError) as raised:
        result.get(timeout=0.5)
    assert str(raised.value).startswith(f"no server answers at redis://127.0.0.1:{port}/3 (")
    assert "s3cret" not in str(raised.value)
    client = Celery(broker=rig.url, set_as_current=False)
    client.conf.update(result_backend="redis", redis_host="results", redis_password="s3cret")
    outcomes = Outcomes(client, is_known=bool, told=str)
    told = outcomes.told_of_backend(ConnectionError("gone"))
    assert told == "no server answers at redis://results:6379/0 (ConnectionError)"
