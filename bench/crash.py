"""Which runs survive when their worker is killed?  ``python -m bench.crash``.

For each peer with workers, the bench starts chains of ten steps of 100 ms each.  While they run, it
kills the worker and all its children with SIGKILL, and starts another worker at once.  It prints
how many chains returned their result in time, and how many steps ran.  Peers in one process are
left out, because the caller would die with them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from bench.harness import ROOT, STEPS_VARIABLE
from bench.run import BENCH, RESULTS, python_for
from multiagents.devserver.server import EmbeddedServer

PEERS = (
    ("celery", "default"),
    ("celery", "acks_late"),
    ("celery_saga", "default"),
    ("dramatiq", "default"),
    ("multiagents", "default"),
)
CHAINS = 6
AFTER_S = 0.5
RESULT_S = 2
"""How long to wait for one result before the next one is tried."""


def main(argv: Sequence[str] | None = None) -> int:
    """Kill each peer's worker once."""
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description=__doc__)
    parser.add_argument(
        "--wait-s", type=float, default=75.0, help="seconds to wait for results after the kill"
    )
    asked = parser.parse_args(argv)
    found = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=BENCH)))
        server = stack.enter_context(EmbeddedServer(folder / "server"))
        client = stack.enter_context(redis.Redis.from_url(server.url))
        for peer, variant in PEERS:
            client.flushall()
            data = folder / f"{peer}-{variant}"
            data.mkdir()
            found.append(_kill(peer, variant, server.url, data, asked.wait_s))
            print(json.dumps(found[-1]), flush=True)
    (RESULTS / "crash.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    return 0


def _kill(peer: str, variant: str, url: str, data: Path, wait_s: float) -> Any:
    command = [str(python_for(peer)), "-m", f"bench.peers.{peer}.run", "--variant", variant]
    command += ["--redis", url, "--data", str(data), "--runs", str(CHAINS)]
    command += ["--crash-after-s", str(AFTER_S), "--crash-wait-s", str(wait_s)]
    environment = {STEPS_VARIABLE: str(data / "steps"), "BENCH_RESULT_S": str(RESULT_S)}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
