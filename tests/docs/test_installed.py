"""Does the installed wheel do what README's literal commands say, without the project's tree?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from multiagents.storage.keys import Shard
from tests.support.processes import ROOT, free_port, wait_for

pytestmark = pytest.mark.processes

USER_MODULE = """
from multiagents import WorkflowBuilder, worker

@worker("greet")
async def greet(context):
    return {"greeting": f"hello {context['name']}"}

@worker("shout", kind="llm")
def shout(context):
    return {"greeting": context["greeting"].upper()}

WorkflowBuilder("hello").add_step("greet", "greet").add_step("shout", "shout").build().register()
"""
CLIENT = """
from multiagents import start_saga
print(start_saga.delay('hello', {'name': 'you'}).get(timeout=30))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content and nothing else of the project."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "-o",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=120)
    return target


@contextmanager
def running(command: list[str], env: dict[str, str], cwd: Path, log: Path) -> Iterator[None]:
    """A process of the user's, stopped at the end; a failing test shows its log."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, cwd=cwd, stdout=out, stderr=out)
    try:
        yield
    except BaseException:
        print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
        raise
    finally:
        process.terminate()
        process.wait(20)


def test_the_literal_worker_and_flower_commands_run_a_users_module(
    installed: Path, redis_url: str, tmp_path: Path
) -> None:
    """In an empty folder the worker runs the user's module, and Flower shows its tasks."""
    modules, empty = tmp_path / "modules", tmp_path / "empty"
    modules.mkdir()
    empty.mkdir()
    (modules / "my_workers.py").write_text(USER_MODULE)
    bin_folder = Path(sys.executable).parent
    env = {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": f"{installed}{os.pathsep}{modules}",
        "MULTIAGENTS_REDIS_URL": redis_url,
        "MULTIAGENTS_IMPORTS": "my_workers",
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    port = free_port()
    celery = [str(bin_folder / "celery"), "-A", "multiagents"]
    worker = [*celery, "worker", "-Q", "llm,io"]
    flower = [*celery, "flower", f"--port={port}", "--address=127.0.0.1"]
    log = tmp_path / "worker.log"
    with running(worker, env, empty, log), running(flower, env, empty, tmp_path / "flower.log"):
        client = {**env, "MULTIAGENTS_IMPORTS": ""}
        with redis.Redis.from_url(redis_url) as store:
            fleet = Shard(0).catalog("fleet")
            wait_for(lambda: store.exists(fleet), 40, "the worker")
        wait_for(lambda: _fetch(port, "/healthcheck") is not None, 30, "Flower")
        control = [*celery, "control", "enable_events"]
        wait_for(lambda: _succeeds(control, env, empty), 40, "the worker's remote control")
        done = subprocess.run(
            [sys.executable, "-c", CLIENT],
            env=client,
            cwd=empty,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.strip() == "{'greeting': 'HELLO YOU'}", done.stderr
        names = wait_for(lambda: _names(port) >= {"greet", "shout"} and _names(port), 20, "tasks")
    assert {"greet", "shout"} <= names


def _succeeds(command: list[str], env: dict[str, str], cwd: Path) -> bool:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def _fetch(port: int, path: str) -> bytes | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return bytes(reply.read())
    except OSError:
        return None


def _names(port: int) -> set[str]:
    tasks = json.loads(_fetch(port, "/api/tasks") or b"{}")
    return {task["name"] for task in tasks.values()}
