"""What does `celery -A multiagents worker` say of the user's modules?  In real processes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from multiagents.core.settings import Settings
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import Runtime
from tests.support.command_line import NO_SERVER
from tests.support.processes import Worker, environment, wait_for

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("MULTIAGENTS_IMPORTS", "shop.py", "no module 'shop.py' in {here}; did you mean 'shop'?"),
        ("MULTIAGENTS_IMPORTS", "shop", "module 'shop' cannot be imported: shop.py:2: Zero"),
        ("MULTIAGENTS_WORKFLOWS", "flows", "invalid workflow: flows: is not a folder, seen from"),
    ],
)
def test_a_worker_ends_in_one_line_at_a_module_it_cannot_import(
    tmp_path: Path, variable: str, value: str, wanted: str
) -> None:
    """Exit code 2, no traceback, and no connection: there is no server at all."""
    (tmp_path / "shop.py").write_text("def f():\n    return 1 / 0\n\nf()\n")
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "multiagents", "worker", "-Q", "io"],
        cwd=tmp_path,
        env=environment(NO_SERVER, **{variable: value}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert done.returncode == 2
    assert said[0].startswith(f"error: {variable}: {wanted.format(here=tmp_path)}")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_worker_names_what_was_forgotten_and_stamps_each_line_once(redis_url: str) -> None:
    """Its log has Celery's time or the engine's own, never both."""
    with Worker(redis_url, "-c", "1", imports="tests.support.forgotten") as worker:
        worker.wait_ready()
        settings = Settings(redis_url=redis_url)
        Runtime(make_app(settings), settings).start_saga.delay("forgotten_said", {})
        wait_for(lambda: "said in a step" in worker.log, 30)
        log = worker.log
    place = "tests/support/forgotten.py:"
    assert f"workflow 'forgotten_hello' is built but not registered ({place}" in log
    assert "forgotten_said" not in log.partition("ready.")[0]
    (line,) = [each for each in log.splitlines() if "said in a step" in each]
    assert len(re.findall(r"\d\d:\d\d:\d\d", line)) == 1
    assert "sku=A1" in re.sub(r"\x1b\[[0-9;]*m|'", "", line)
