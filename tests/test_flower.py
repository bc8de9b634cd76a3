"""Does Flower show the outcomes of sagas?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from multiagents.celery_app import make_app
from multiagents.core.settings import Settings
from tests.processes import ROOT, environment, free_port, wait_for

pytestmark = pytest.mark.processes
UP_S = 40.0


@pytest.fixture
def flower(redis_url: str) -> Iterator[str]:
    """The address of a Flower of the package's own app."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "multiagents", "flower", f"--port={port}"],
        cwd=ROOT,
        env=environment(redis_url, FLOWER_UNAUTHENTICATED_API="true", FLOWER_ADDRESS="127.0.0.1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def status(url: str) -> int:
    """What is answered; 0 while nothing is."""
    try:
        with urlopen(url, timeout=5) as reply:
            return int(reply.status)
    except HTTPError as error:
        return error.code
    except URLError:
        return 0


def test_flower_finds_a_sagas_outcome(flower: str, redis_url: str) -> None:
    """By its id, in the results of the app that it was given."""
    app = make_app(Settings(redis_url=redis_url))
    app.backend.mark_as_done("a-saga", {"two": 1})
    app.close()
    found = wait_for(lambda: status(f"{flower}/api/task/result/a-saga"), UP_S, "Flower")
    assert found == 200
