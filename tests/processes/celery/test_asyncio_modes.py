"""Do asyncio tests of a project run, whatever mode its pytest-asyncio has?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from multiagents.core.exceptions import NoServer
from tests.support.processes import PYTEST, environment

TESTS = '''
import asyncio

import pytest

from multiagents import WorkflowBuilder, start_saga, worker
from multiagents.core.factory import create_simple_framework


@worker("modes.work")
async def worker_function(context):
    await asyncio.sleep(0)
    return {"status": "success", "output": context["input"]}


def create_workflow():
    return WorkflowBuilder("test_workflow").add_step("work", "modes.work").build()


async def wait_for_completion(orchestrator, transaction_id):
    async with asyncio.timeout(20):
        while True:
            status = await orchestrator.get_status(transaction_id)
            if status["state"] not in ("pending", "running"):
                return status
            await asyncio.sleep(0.02)


@pytest.mark.asyncio
async def test_worker():
    """Test worker in isolation."""
    context = {"input": "test_value"}
    result = await worker_function(context)

    assert result["status"] == "success"
    assert "output" in result


@pytest.mark.asyncio
async def test_workflow():
    """Test complete workflow."""
    workflow = create_workflow()
    event_bus, worker_manager, orchestrator = await create_simple_framework(workflow)
    worker_manager.register(worker_function)

    try:
        await event_bus.start()
        await worker_manager.start()
        await orchestrator.start()

        transaction_id = await orchestrator.execute_workflow("test_workflow", {"input": 1})
        status = await wait_for_completion(orchestrator, transaction_id)

        assert status["state"] == "completed"
    finally:
        await orchestrator.stop()
        await worker_manager.stop()
        await event_bus.stop()


@pytest.mark.asyncio
async def test_a_lab_in_an_asyncio_test(saga_lab):
    saga_id = saga_lab.start(create_workflow(), {"input": 1})
    assert saga_lab.get(saga_id)["state"] == "completed"
    assert start_saga.delay(create_workflow(), {"input": 2}).get()["output"] == 2


def test_a_lab_in_a_plain_test(saga_lab):
    saga_id = saga_lab.start(create_workflow(), {"input": 1})
    assert saga_lab.get(saga_id)["state"] == "completed"
'''


@pytest.mark.processes
@pytest.mark.parametrize(
    ("mode", "which", "count"),
    [("", "lab", 2), ("auto", "lab or worker", 3), ("strict", "test", 4)],
)
def test_asyncio_tests_run_as_documented_in_each_mode(
    mode: str, which: str, count: int, redis_url: str, tmp_path: Path
) -> None:
    """Of workers, of a framework on a server, and with the fixture; with coverage measured.

    A project that says nothing of asyncio, and takes warnings for errors, gets none.
    """
    (tmp_path / "test_of_a_user.py").write_text(TESTS)
    own = f"asyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n" if mode else ""
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\n{own}"
        "filterwarnings =\n    error\n    ignore:Call to deprecated setex:DeprecationWarning\n"
    )
    covered = ["--cov=test_of_a_user", "--cov-report="] if mode == "strict" else []
    done = subprocess.run(
        [*PYTEST, "-k", which, *covered],
        cwd=tmp_path,
        env=environment(redis_url),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} passed" in done.stdout


def test_the_fixture_without_its_packages_says_what_to_install(
    saga_lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that has asked for no eager mode gets no error about it."""
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    with pytest.raises(NoServer) as caught:
        saga_lab.start("order", {})
    assert str(caught.value) == (
        "the fixture saga_lab runs sagas in this process, on fakeredis, which is not installed:"
        " pip install 'multiagents[testing]'"
    )
