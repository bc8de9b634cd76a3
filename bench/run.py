"""How do sagas compare with other systems at the same work?  ``python -m bench.run``.

The runner starts one embedded server.  The peers use it in turn, in several rounds, each in its own
virtual environment and processes.  Each round begins with another peer.  The table goes to
``bench/results`` as CSV, Markdown and a picture, with the lines behind it.  A failed peer has no
figure; the end of the output names it, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from bench.environments import python_of
from bench.harness import ROOT, WORKLOADS
from bench.machine import facts
from bench.table import rows, to_csv, to_markdown
from multiagents.devserver.server import EmbeddedServer

BENCH = ROOT / "bench"
RESULTS = BENCH / "results"
PART = RESULTS / "part"
"""The folder for a run of only some peers, or a quick one."""
PAGE = ROOT / "docs" / "explanation" / "performance.md"
PEERS = (
    ("celery", "default"),
    ("celery", "acks_late"),
    ("celery_saga", "default"),
    ("dramatiq", "default"),
    ("dbos", "default"),
    ("dbos", "wal"),
    ("langgraph", "default"),
    ("langgraph", "normal"),
    ("multiagents", "default"),
    ("multiagents", "by_message"),
    ("raw", "list"),
    ("raw", "continue"),
)
"""Module and variant, in the order of the table."""
OWN = "multiagents"
"""The peer that runs in the runner's own environment, because the package is there."""
PEER_S = 180.0
"""A peer that takes longer for its workloads hangs."""
QUICK = {"rounds": 1, "runs": 10, "min_s": 0.1}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, or make the table again from recorded lines."""
    asked = _arguments(argv)
    failed: list[str] = []
    if asked.again:
        machine, *lines = map(json.loads, (asked.results / "latest.jsonl").read_text().splitlines())
    else:
        machine, lines, failed = _measure(asked)
    _write(machine, lines, asked.results)
    if asked.publish:
        PAGE.write_text(published(PAGE.read_text(), (asked.results / "latest.md").read_text()))
    print((asked.results / "latest.md").read_text())
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return 1 if failed else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    names = sorted({peer for peer, _ in PEERS})
    parser.add_argument("--only", nargs="+", metavar="PEER", choices=names, help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=60, help="chains of 10 started at once")
    parser.add_argument(
        "--min-s", type=float, default=1.0, help="minimum seconds of each measurement"
    )
    parser.add_argument("--quick", action="store_true", help="one short round, to test the peers")
    parser.add_argument("--results", type=Path, help="folder for the table")
    parser.add_argument("--publish", action="store_true", help="also put the table into the docs")
    parser.add_argument("--again", action="store_true", help="use the last lines; do not measure")
    asked = parser.parse_args(argv)
    if asked.quick:
        vars(asked).update(QUICK)
    if asked.results is None:
        asked.results = PART if asked.quick or asked.only else RESULTS
    return asked


# ---- measuring ----


def _measure(asked: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    chosen = [pair for pair in PEERS if not asked.only or pair[0] in asked.only]
    pythons = {peer: python_for(peer) for peer, _ in chosen}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=BENCH)))
        server = stack.enter_context(EmbeddedServer(folder / "server", appendfsync="everysec"))
        client = stack.enter_context(redis.Redis.from_url(server.url, decode_responses=True))
        client.config_set("auto-aof-rewrite-percentage", 0)  # no fork while a peer runs
        found: list[dict[str, Any]] = []
        for number in range(asked.rounds):
            for peer, variant in _turned(chosen, number):
                client.flushall()
                data = folder / f"{number}-{peer}-{variant}"
                data.mkdir()
                said = _run(pythons[peer], peer, variant, server, data, asked)
                found += [{**line, "round": number} for line in said]
        return {**facts(client), **_extent(asked)}, _in_order(found), _missing(chosen, found, asked)


def _in_order(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    order = {pair: place for place, pair in enumerate(PEERS)}
    return sorted(found, key=lambda line: (order[line["peer"], line["variant"]], line["round"]))


def _missing(
    chosen: Sequence[tuple[str, str]], found: Sequence[dict[str, Any]], asked: argparse.Namespace
) -> list[str]:
    """The peers that lack a figure for a workload in a round."""
    counts = Counter((line["peer"], line["variant"]) for line in found)
    return [" ".join(pair) for pair in chosen if counts[pair] < asked.rounds * len(WORKLOADS)]


def python_for(peer: str) -> Path:
    """The interpreter of a peer's environment; the first call makes the environment."""
    if peer == OWN:
        return Path(sys.executable)
    return python_of(peer, BENCH / "peers" / peer / "requirements.txt")


def _turned(chosen: Sequence[tuple[str, str]], number: int) -> list[tuple[str, str]]:
    """The peers from a third further on in each round, so that no peer is always first."""
    start = number * max(1, len(chosen) // 3) % len(chosen)
    return [*chosen[start:], *chosen[:start]]


def _run(
    python: Path,
    peer: str,
    variant: str,
    server: EmbeddedServer,
    data: Path,
    asked: argparse.Namespace,
) -> Iterator[dict[str, Any]]:
    """The lines of a peer; afterwards none of its processes remains."""
    command = [str(python), "-m", f"bench.peers.{peer}.run", "--variant", variant]
    command += ["--redis", server.url, "--server-pid", str(server.pid), "--data", str(data)]
    command += ["--runs", str(asked.runs), "--min-s", str(asked.min_s)]
    errors = data / "errors.log"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
        )
    try:
        said = process.communicate(timeout=PEER_S)[0]
    except subprocess.TimeoutExpired:
        _end_group(process)
        said = process.communicate()[0]
    finally:
        _end_group(process)
    for text in said.decode().splitlines():
        line = json.loads(text)
        print(f"{peer} {variant}: {line['workload']} {line['steps_per_s']:,.0f}", file=sys.stderr)
        yield line
    if process.returncode:
        print(f"{peer} {variant}:\n{errors.read_text()[-2000:]}", file=sys.stderr)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the peer's process group, which includes its workers."""
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)


def _extent(asked: argparse.Namespace) -> dict[str, Any]:
    at_once = "/".join(str(workload.runs(asked.runs)) for workload in WORKLOADS.values())
    return {"rounds": asked.rounds, "runs at once": at_once}


# ---- writing ----


def _write(machine: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = rows(lines)
    recorded = "".join(json.dumps(line) + "\n" for line in [machine, *lines])
    (folder / "latest.jsonl").write_text(recorded)
    (folder / "latest.csv").write_text(to_csv(found, machine))
    (folder / "latest.md").write_text(to_markdown(found, machine))
    python = python_of("plot", BENCH / "plot-requirements.txt")
    table, picture = folder / "latest.csv", folder / "latest.svg"
    subprocess.run([str(python), str(BENCH / "plot.py"), str(table), str(picture)], check=True)


BEGIN, END = "<!-- table of the last run -->", "<!-- end of the table -->"


def published(page: str, table: str) -> str:
    """The page with the table between its two marks.  Raises ValueError without both marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no place for the table; expected {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
