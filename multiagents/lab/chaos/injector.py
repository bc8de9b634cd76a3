"""When does each fault occur, and when does it end?

One loop runs the schedule: it injects faults at their times, wakes frozen workers and restarts the
server.  A fault without a target is tried again.  A fault of the server also waits until a lease
has passed since the last one, so that sagas can recover.  The loop also replaces dead workers and
prints progress.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from multiagents.cli.session import Session
from multiagents.devserver.server import EmbeddedServer
from multiagents.lab.chaos.crew import Crew
from multiagents.lab.chaos.plan import KILLS, ChaosPlan, FaultKind, Planned, schedule
from multiagents.lab.chaos.recovery import Fault
from multiagents.storage.client import UNREACHABLE

POLL_S = 0.05
AGAIN_S = 0.2
"""Seconds before a fault without a target is tried again."""
LOOK_S = 0.5
"""Seconds between two reads of the ready workers."""
TELL_S = 10.0
"""Seconds between two lines of progress."""

Act = Callable[[], bool]
"""An action of the agenda; False if it must be tried again."""


class Injector:
    """Injects the plan's faults.  ``tell`` prints progress, every `TELL_S`."""

    def __init__(
        self,
        plan: ChaosPlan,
        *,
        crew: Crew,
        server: EmbeddedServer,
        session: Session,
        client: Any,
        tell: Callable[[], None],
    ) -> None:
        self.faults: list[Fault] = []
        self._crew, self._server, self._session, self._client = crew, server, session, client
        self._tell = tell
        self._chance = random.Random(f"targets {plan.seed}")
        self._order = itertools.count()
        self._agenda: list[tuple[float, int, Act]] = []
        self._down = False
        self._lease_s = plan.lease_s
        self._calm_s = 0.0
        self._looked = self._told = 0.0
        for planned in schedule(plan):
            self._put(planned.at_s, partial(self._inject, planned))

    @property
    def done(self) -> bool:
        """Whether every fault has occurred and ended."""
        return not self._agenda

    def run(self, fed: Callable[[], bool], *, until_s: float) -> None:
        """Inject all faults, and watch until all sagas are ``fed``; give up after ``until_s``."""
        self._began = time.monotonic()
        while not (self.done and fed()) and self._now_s < until_s:
            while self._agenda and self._agenda[0][0] <= self._now_s:
                _, _, act = heapq.heappop(self._agenda)
                if not act():
                    self._put(self._now_s + AGAIN_S, act)
            self.watch()
            time.sleep(POLL_S)
        self._end_what_lasts()

    def watch(self) -> None:
        """Replace dead workers, note the ready ones, print progress."""
        self._crew.tend()
        now = time.monotonic()
        if now - self._looked >= LOOK_S and not self._down:
            self._looked = now
            self._look()
        if now - self._told >= TELL_S:
            self._told = now
            self._tell()

    def _look(self) -> None:
        try:
            self._crew.note_ready(self._session.fleet())
        except UNREACHABLE:  # cut off, or the server has just restarted: the next look is enough
            return

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._began

    def _put(self, at_s: float, act: Act) -> None:
        heapq.heappush(self._agenda, (at_s, next(self._order), act))

    def _end_what_lasts(self) -> None:
        if self._down:
            self._revive()
        for member in self._crew.members:
            if member.frozen:
                self._crew.wake(member)

    # ---- faults ----

    def _inject(self, planned: Planned) -> bool:
        if planned.kind in KILLS:
            return self._kill(planned.kind)
        if planned.kind is FaultKind.PAUSE:
            return self._freeze(planned.lasts_s)
        if self._down or self._now_s < self._calm_s:
            return False
        if planned.kind is FaultKind.KILL_SERVER:
            return self._kill_server(planned.lasts_s)
        return self._cut()

    def _note(self, kind: FaultKind, worker: str = "") -> None:
        self.faults.append(Fault(kind, self._session.now_ms, worker))

    def _kill(self, kind: FaultKind) -> bool:
        member = self._crew.target(kind, self._chance)
        if member is None or not self._crew.kill(member, kind, self._chance):
            return False
        self._note(kind, member.name)
        return True

    def _freeze(self, lasts_s: float) -> bool:
        member = self._crew.target(FaultKind.PAUSE, self._chance)
        if member is None:
            return False
        self._crew.freeze(member)
        self._note(FaultKind.PAUSE, member.name)

        def wake() -> bool:
            self._crew.wake(member)
            return True

        self._put(self._now_s + lasts_s, wake)
        return True

    def _kill_server(self, lasts_s: float) -> bool:
        self._server.kill()
        self._note(FaultKind.KILL_SERVER)
        self._down = True
        self._put(self._now_s + lasts_s, self._revive)
        return True

    def _revive(self) -> bool:
        self._server.restart()
        self._down = False
        self._calm_s = self._now_s + self._lease_s
        return True

    def _cut(self) -> bool:
        """Close half of the connections, except this client's."""
        try:
            mine = self._client.client_id()
            others = [one["id"] for one in self._client.client_list() if int(one["id"]) != mine]
            chosen = self._chance.sample(sorted(others, key=int), len(others) // 2)
            for number in chosen:
                self._client.execute_command("CLIENT", "KILL", "ID", number)
        except UNREACHABLE:  # the server has just restarted: not a cut
            return False
        self._note(FaultKind.CUT)
        self._calm_s = self._now_s + self._lease_s
        return True
