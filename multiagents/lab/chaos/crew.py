"""Which workers run, and how do they end?

The crew consists of real worker processes, alternately prefork and threads.  Each worker that ends
is replaced under a new name, so a saga's log says which process held a step.  After a while the
crew also kills the orphans of a main process that was killed alone.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from multiagents.cli.worker_process import WorkerProcess
from multiagents.lab.bench.cpu import descendants
from multiagents.lab.chaos.plan import CONCURRENCY, ChaosPlan, FaultKind

POOLS = ("prefork", "threads")
ORPHANS_S = 30.0
"""How long children may continue after their main process was killed."""


@dataclass(slots=True)
class Member:
    """One worker process."""

    slot: int
    pool: str
    worker: WorkerProcess
    ready: bool = False
    frozen: bool = False

    @property
    def name(self) -> str:
        """Its hostname, as in the logs."""
        return self.worker.hostname

    @property
    def pid(self) -> int:
        """The pid of the main process, which leads its process group."""
        return self.worker.process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the main process has ended."""
        return self.worker.process.poll() is not None


class Crew:
    """The workers of a run.  ``env`` is added to their environment; logs go to ``folder``."""

    def __init__(self, plan: ChaosPlan, folder: Path, env: Mapping[str, str]) -> None:
        self._plan = plan
        self._folder = folder
        self._env = env
        self._count = 0
        self._workers: list[WorkerProcess] = []
        self._dead: list[tuple[Member, float]] = []
        self.members: list[Member] = []
        self.ended_by_themselves: list[str] = []
        """A line for each worker that ended without a kill."""

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill all workers at once; `stop` stops them in order."""
        for worker in self._workers:
            worker.kill()
        self.members, self._workers, self._dead = [], [], []

    def start(self) -> None:
        """Start all workers; they are ready some seconds later."""
        for slot in range(self._plan.workers):
            self.members.append(self._start(slot))

    def _start(self, slot: int) -> Member:
        self._count += 1
        pool = POOLS[slot % len(POOLS)]
        name = f"chaos-{slot}-{self._count}"
        options = ("-P", pool, "-c", str(CONCURRENCY), "-l", "WARNING")
        worker = WorkerProcess(
            name,
            env=self._env,
            options=(*options, "--without-gossip", "--without-mingle"),
            cwd=self._folder,
            log=self._folder / f"{name}.log",
        )
        self._workers.append(worker)  # before it exists, so that `__exit__` always kills it
        worker.__enter__()
        return Member(slot, pool, worker)

    # ---- while it runs ----

    def note_ready(self, hostnames: Mapping[str, object]) -> None:
        """Mark the workers that have published themselves as ready."""
        for member in self.members:
            member.ready = member.ready or member.name in hostnames

    @property
    def all_ready(self) -> bool:
        """Whether every worker claims work."""
        return all(member.ready for member in self.members)

    def tend(self) -> None:
        """Replace workers that ended without a kill, and kill orphans after `ORPHANS_S`."""
        for member in list(self.members):
            if member.has_ended:
                self.ended_by_themselves.append(f"{member.name}: {member.worker.ended()}")
                self._bury(member)
                self._replace(member)
        for dead, until in list(self._dead):
            if time.monotonic() >= until or not _group_lives(dead.pid):
                self._dead.remove((dead, until))
                self._end(dead)

    def _replace(self, member: Member) -> None:
        self.members[self.members.index(member)] = self._start(member.slot)

    def _bury(self, member: Member) -> None:
        """Give the children of a dead main process time to end."""
        self._dead.append((member, time.monotonic() + ORPHANS_S))

    def _end(self, member: Member) -> None:
        member.worker.kill()
        self._workers.remove(member.worker)

    # ---- faults ----

    def target(self, kind: FaultKind, chance: random.Random) -> Member | None:
        """A ready worker that this fault fits; None while there is none."""
        pools = POOLS[:1] if kind is FaultKind.KILL_CHILD else POOLS
        fit = [
            member
            for member in self.members
            if member.ready and not member.frozen and not member.has_ended and member.pool in pools
        ]
        return chance.choice(fit) if fit else None

    def kill(self, member: Member, kind: FaultKind, chance: random.Random) -> bool:
        """Kill the part of a worker that the kind names; False if it has no such process."""
        if kind is FaultKind.KILL_CHILD:
            children = sorted(descendants(member.pid))
            return bool(children) and _signal(chance.choice(children), signal.SIGKILL)
        if kind is FaultKind.KILL_ALL:
            self._end(member)
        else:
            member.worker.process.kill()
            member.worker.process.wait()
            self._bury(member)
        self._replace(member)
        return True

    def freeze(self, member: Member) -> None:
        """Stop a worker and its children until `wake`."""
        member.frozen = True
        _signal_group(member.pid, signal.SIGSTOP)

    def wake(self, member: Member) -> None:
        """Continue a frozen worker; nothing happens if it has been killed meanwhile."""
        member.frozen = False
        if member in self.members:
            _signal_group(member.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop all workers at the same time, each after its running steps."""
        for member in self.members:
            self.wake(member)
        with ThreadPoolExecutor(max(1, len(self.members))) as pool:
            list(pool.map(lambda member: member.worker.stop(), self.members))
        self.members = []


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # the process has just ended
        return False
    return True


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # the whole group has ended
        return


def _group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
