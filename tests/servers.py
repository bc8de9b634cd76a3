"""Do the tests that depend on the server pass on every installed server?

    python -m tests.servers [--at-least N] [--rabbitmq] [--bundled]

The whole suite runs on one server: the binary that MULTIAGENTS_REDIS_SERVER names, else one on
PATH, else the bundled one.  This module runs the tests that depend on the server most (scripts and
their errors, refused writes, streams, the transport, a worker through a restart) on each of the
others.  Then it runs the tests with RabbitMQ as the broker, if it is installed; with
``--rabbitmq`` it must be.
``--bundled`` prints the path of the bundled one instead.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from multiagents.core.exceptions import NoServer
from multiagents.devserver.binary import ServerBinary, candidates, locate, probe
from tests.support import rabbit
from tests.support.processes import ROOT

SELECTED = (
    "tests/store/test_store.py",
    "tests/unit/core/test_server_urls.py",
    "tests/flows/test_transport.py",
    "tests/processes/outage/test_redis_refusals.py",
    "tests/processes/outage/test_redis_full.py",
    "tests/flows/test_letters.py",
    "tests/flows/test_answers.py",
    "tests/unit/event_bus/test_bus_server.py",
    "tests/store/test_clocks.py",
    "tests/processes/outage/test_celery_broker.py",
)
WITH_RABBITMQ = ("tests/processes/celery/test_rabbitmq.py",)
CHOSEN = "not processes or each_server"
"""One test has workers: a prefork worker goes on after its server's restart.  Marks select it: a
word after ``-k`` would mean the folder of that name, too."""


def main() -> int:
    """Run the selected tests on each server but the one of the whole suite; pytest's exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--at-least", type=int, default=1, metavar="N", help="servers expected")
    parser.add_argument("--rabbitmq", action="store_true", help="RabbitMQ is expected")
    parser.add_argument("--bundled", action="store_true", help="print the bundled one's path")
    options = parser.parse_args()
    found = servers()
    if options.bundled:
        print(next(str(each.path) for each in found if each.source == "bundled"))
        return 0
    first = locate()
    others = [each for each in found if each.version != first.version]
    print(f"the whole suite's server: {said(first)}; others here: {len(others)}", flush=True)
    if len(others) + 1 < options.at_least:
        print(f"{options.at_least} servers are expected; install one: apt-get install redis-server")
        return 1
    if options.rabbitmq and not rabbit.SERVER.exists():
        print(rabbit.MISSING)
        return 1
    return max([*[run(each) for each in others], run_rabbitmq()])


def servers() -> list[ServerBinary]:
    """Each working server here, one per version."""
    found: dict[tuple[int, int, int], ServerBinary] = {}
    for source, _, path in candidates():
        try:
            binary = probe(source, path)
        except NoServer:  # not here, or too old
            continue
        found.setdefault(binary.version, binary)
    return list(found.values())


def run(server: ServerBinary) -> int:
    """The selected tests on one server; pytest's exit code."""
    print(f"== on {said(server)}", flush=True)
    began = time.monotonic()
    words = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", CHOSEN]
    env = {**os.environ, "MULTIAGENTS_REDIS_SERVER": str(server.path)}
    code = subprocess.run([*words, *SELECTED], cwd=ROOT, env=env, check=False).returncode
    print(f"== on {said(server)}: exit code {code}, {time.monotonic() - began:.0f} s", flush=True)
    return code


def run_rabbitmq() -> int:
    """The tests with RabbitMQ as the broker, if it is here; pytest's exit code."""
    if not rabbit.SERVER.exists():
        print("== no RabbitMQ is here: the tests with it as the broker are left out")
        return 0
    print("== with RabbitMQ as the broker", flush=True)
    began = time.monotonic()
    words = [sys.executable, "-m", "pytest", "-m", "rabbitmq", *WITH_RABBITMQ]
    code = subprocess.run(words, cwd=ROOT, check=False).returncode
    print(f"== with RabbitMQ: exit code {code}, {time.monotonic() - began:.0f} s", flush=True)
    return code


def said(server: ServerBinary) -> str:
    """The server's name, version and place."""
    version = ".".join(map(str, server.version))
    return f"{server.path.name} {version} ({server.source}: {server.path})"


if __name__ == "__main__":
    sys.exit(main())
