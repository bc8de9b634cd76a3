"""What do workers and programs say of a server that is not there yet?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from multiagents.devserver.server import EmbeddedServer
from tests.support.command_line import NO_SERVER, cli
from tests.support.kill_rig import QUIET, Rig
from tests.support.processes import ROOT, Worker, environment, free_port, wait_for

SECRET = "s3cret"
BOUNDED_S = 5.0
SWEEPER = "its sagas wait; it is tried again every 5 s, until this worker is stopped"


@pytest.mark.processes
def test_a_worker_waits_for_its_server_and_then_works(tmp_path: Path) -> None:
    """It logs once which server it waits for and how often it tries, without a traceback."""
    port = free_port()
    url = f"redis://:{SECRET}@127.0.0.1:{port}/0"
    env = {"KILL_DIR": str(tmp_path)}
    with Worker(
        url, *QUIET, "-c", "1", "-P", "threads", imports="tests.support.kill_workers", env=env
    ) as worker:
        shown = f"no server answers at redis://127.0.0.1:{port}/0 (ConnectionError): {SWEEPER}"
        wait_for(lambda: shown in worker.log, 40.0, "the line of the sweeper")
        wait_for(lambda: "Trying again in" in worker.log, 40.0, "Celery's own")
        with EmbeddedServer(tmp_path / "server", port=port) as server:
            rig = Rig(server.url, 0, tmp_path)
            rig.redis.config_set("requirepass", SECRET)
            worker.wait_ready()
            wait_for(lambda: "the sweeps go on" in worker.log, 20.0, "the sweeper's return")
            rig.redis.config_set("requirepass", "")
            assert rig.wait_settled(rig.start("kp_completes"))["state"] == "completed"
            rig.close()
        log = worker.log
    assert log.count(SWEEPER) == 1
    assert "Traceback" not in log
    assert SECRET not in log


def test_a_start_without_a_server_is_a_clear_error_soon() -> None:
    """It names the server, what was tried and the variable; in Python, asyncio and a shell."""
    url = NO_SERVER.replace("//", f"//:{SECRET}@")
    script = (
        "import asyncio, multiagents\n"
        "from multiagents.core.exceptions import NoServer\n"
        "workflow = multiagents.WorkflowBuilder('w').add_step('a', multiagents.task('t')).build()\n"
        "async def start():\n"
        "    await multiagents.Orchestrator(workflow).start()\n"
        "for act in (lambda: multiagents.start_saga.delay(workflow, {}),\n"
        "            lambda: asyncio.run(start())):\n"
        "    try:\n"
        "        act()\n"
        "    except NoServer as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = cli("start", "order", url=url)
    assert (told.code, told.out) == (2, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout + done.stderr
    for line in (*lines, told.err):
        assert "127.0.0.1:1/0" in line
        assert "MULTIAGENTS_REDIS_URL" in line
    tried = [float(text) for text in re.findall(r"tried for ([\d.]+) s", done.stdout)]
    assert len(tried) == 2
    assert max(tried) < BOUNDED_S
    assert SECRET not in done.stdout + done.stderr + told.err
