"""Where do the sweeps run?

In one daemon thread for each server, in every worker's main process; Celery's timers stop while
Redis is away.  A check for due items costs one command.  A sweep runs if something is due, and
often enough for the tick (E9).  The first server's thread also refreshes the catalog and corrects
the clock.  Each thread gives back commands whose function this worker lacks (`handback`): the
consumer hands them over and continues at once.

Rules: a thread survives any failure of its server.  It waits, longer each time, and looks again,
while the other threads sweep on.  Only sagas in a newer engine's format end it, with its worker.
Only a server that does not answer, or takes no writes, ends a round.  Any other error concerns one
due member.  It is logged in one line, the member is retried later and later, up to a minute, and
the round goes on.
"""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from multiagents.core.clock import Clock
from multiagents.core.effects import Flow
from multiagents.core.exceptions import NewerFormat, UnknownSaga
from multiagents.core.settings import Settings
from multiagents.engine.handback import Foreign, HandBack
from multiagents.engine.sweeper import Sweeper
from multiagents.hosting.sweep_pace import Pace
from multiagents.hosting.worker_end import Leaving
from multiagents.storage import formats
from multiagents.storage import sagas as store
from multiagents.storage.client import UNREACHABLE, Edge, StoreError
from multiagents.storage.clock_sync import Timekeeper
from multiagents.storage.failures import MOST_FAILURES, NOT_COUNTED
from multiagents.storage.keys import Shard, shard_of
from multiagents.storage.routing import told
from multiagents.storage.sagas import Guard

ANNOUNCE_MS = 10_000
"""How often a worker announces itself, and checks the format of its sagas."""
MOST_PAUSE_S = 5.0
"""The longest wait between two tries while the server is away."""
MOST_FOREIGN = 100_000
"""Messages that a worker without their functions remembers; a sweep finds the others."""
UNCONFIRMED_S = 0.05
"""The wait before an unconfirmed command is given back again."""
WAKINGS = 2
"""How often a worker wakes the steps that wait for its functions, one announcement apart.  At the
first one, another thread may not have announced the functions yet."""
WAITS = f"its sagas wait; it is tried again every {MOST_PAUSE_S:g} s, until this worker is stopped"

ENDS_A_ROUND = (*UNREACHABLE, NewerFormat)
"""Errors that concern more than one saga."""
TOLD_AGAIN = 60
"""Every so many failures an item is logged again: about once an hour."""
MOST_UNKNOWN = 3
"""From this many failures on, an item of a deleted saga is logged: it should be gone too."""

log = structlog.get_logger(__name__)

Announce = Callable[[], Flow[None]]
Queues = Callable[[], list[str]]
"""The queues that this worker consumes."""
Slots = Callable[[], int]
"""The number of tasks that it may run at once."""
AtWork = Callable[[], int | None]
"""The number of tasks that it runs now; None: not known."""
Refuse = Callable[[NewerFormat], None]
"""Called once if this worker must not go on."""


def _go_on(error: NewerFormat) -> None:
    """For sweepers that have no worker to end."""


class SweeperThreads:
    """Sweeps the shards of all servers until it is stopped."""

    def __init__(
        self,
        sweeper: Sweeper,
        edge: Edge,
        *,
        settings: Settings,
        clock: Clock,
        announce: Announce,
        retire: Announce,
        peers: Callable[[], int],
        hand_backs: Callable[[], HandBack],
        queues: Queues,
        stopping: Callable[[], bool] = lambda: False,
        refuse: Refuse = _go_on,
    ) -> None:
        self._settings = settings
        self._leaving = Leaving(edge, announce=announce, retire=retire)
        self._threads = [
            SweeperThread(
                sweeper,
                edge,
                settings=settings,
                clock=clock,
                announce=None if number else announce,
                shards=shards,
                peers=peers,
                hand_back=hand_backs(),
                queues=queues,
                stopping=stopping,
                refuse=refuse,
            )
            for number, shards in enumerate(settings.servers.values())
        ]

    def hand_back(self, message: Foreign) -> None:
        """Queue a command for the thread of its server; returns at once, in any thread."""
        home = shard_of(message.saga_id, self._settings.shards)
        next(each for each in self._threads if home in each.shards).take(message)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the present sweeps; the worker is shown as stopping until it has `left`."""
        self._stop_sweeping()
        self._leaving.begin()

    def left(self) -> None:
        """The worker has ended, warm or cold; a second call does nothing."""
        self._stop_sweeping()
        self._leaving.end()

    def _stop_sweeping(self) -> None:
        for thread in self._threads:
            thread.ask_to_stop()
        for thread in self._threads:
            thread.stop()


class SweeperThread:
    """Sweeps these shards (None: all).  With ``announce`` it also announces the worker.

    ``peers``: the number of workers; ``chance`` draws from 0 to 1; see `Pace`.
    """

    def __init__(
        self,
        sweeper: Sweeper,
        edge: Edge,
        *,
        settings: Settings,
        clock: Clock,
        announce: Announce | None,
        shards: Sequence[int] | None = None,
        peers: Callable[[], int] = lambda: 1,
        chance: Callable[[], float] = random.random,
        hand_back: HandBack | None = None,
        queues: Queues = list,
        stopping: Callable[[], bool] = lambda: False,
        refuse: Refuse = _go_on,
    ) -> None:
        self._sweeper = sweeper
        self._edge = edge
        self._settings = settings
        self._clock = clock
        self.shards = tuple(map(Shard, range(settings.shards) if shards is None else shards))
        self._hand_back = hand_back
        self._queues = queues
        self._foreign: deque[Foreign] = deque(maxlen=MOST_FOREIGN)
        self._at_hand: list[Foreign] = []
        self._wake = threading.Event()
        self._wakings = 0
        self._brings: tuple[object, ...] = ()
        self._announce = announce
        self._pace = Pace(settings, peers=peers, chance=chance)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="multiagents-sweeper", daemon=True)
        self._swept_ms = dict.fromkeys(self.shards, 0)
        self._timekeeper = Timekeeper(clock)
        self._announced_ms = self._noted_ms = 0
        self._stopping = stopping
        self._announced_stopping = False
        self._refuse = refuse
        self._failing: set[str] = set()
        """Failures that are logged and go on."""
        self._failures = 0
        self._failed_at = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def take(self, message: Foreign) -> None:
        """Queue a command to be given back soon."""
        self._foreign.append(message)
        self._wake.set()

    def ask_to_stop(self) -> None:
        """Ask the thread to end, and return at once."""
        self._stop.set()
        self._wake.set()

    def stop(self) -> None:
        """End after the present sweep."""
        self.ask_to_stop()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                pause_s = self.once()
                self._note_return()
            except NewerFormat as error:
                log.critical(str(error))
                self._refuse(error)
                return
            except Exception as error:  # noqa: BLE001 - the thread must survive any error
                pause_s = self._after(error)
            self._wake.wait(pause_s)
            self._wake.clear()
        self._leave()

    def _leave(self) -> None:
        """Give back the last commands; another worker's sweep finds those that fail here."""
        try:
            while self._foreign:
                self._give_back()
        except StoreError as error:
            log.warning("steps are left to a sweep", error=type(error).__name__)

    def _note_return(self) -> None:
        if self._failures:
            log.warning("the sweeps go on", after_s=round(time.monotonic() - self._failed_at))
        self._failures = 0

    def once(self) -> float:
        """Do one round over the shards; returns the seconds until the next."""
        self._housekeep()
        again_s = self._give_back()
        return min(again_s, *(self._try_round(shard) for shard in self.shards))

    def _try_round(self, shard: Shard) -> float:
        """Do a shard's round; an unreadable due set does not delay the other shards."""
        what = f"sweep of {shard.due}"
        try:
            pause_s = self._edge.run(self.round(shard))
        except ENDS_A_ROUND:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this shard alone
            self._note_failure(what, error)
            return MOST_PAUSE_S
        self._failing.discard(what)
        return pause_s

    def _note_failure(self, what: str, error: Exception) -> None:
        """Log a failure once, until the next success."""
        if what not in self._failing:
            self._failing.add(what)
            log.error(f"{what} failed, it is tried again", **_about(error))

    def _give_back(self) -> float:
        """Give back one batch of commands; returns the seconds until the next."""
        if self._hand_back is None:
            return MOST_PAUSE_S
        while self._foreign and len(self._at_hand) < self._sweeper.batch:
            self._at_hand.append(self._foreign.popleft())
        if not self._at_hand:
            return MOST_PAUSE_S
        try:
            self._at_hand = self._edge.run(self._hand_back.hand_back(self._at_hand))
        except ENDS_A_ROUND:
            raise
        except Exception as error:  # noqa: BLE001 - sweeps go on, and one sends them
            log.error("cannot give back steps; a sweep will", **_about(error))
            self._at_hand = []
        if self._foreign:
            return 0.0
        return UNCONFIRMED_S if self._at_hand else MOST_PAUSE_S

    def _housekeep(self) -> None:
        if self._announce is not None:
            self._timekeeper.keep(self._edge)
        now_ms = self._clock.now_ms()
        if abs(now_ms - self._noted_ms) >= ANNOUNCE_MS:  # a clock may be set back, too
            self._edge.run(formats.note(self.shards))
            self._noted_ms = self._clock.now_ms()
        # A solo worker sweeps on in its last task.
        turned = self._stopping() != self._announced_stopping
        if turned or abs(now_ms - self._announced_ms) >= ANNOUNCE_MS:
            self._announced_stopping = self._stopping()
            self._try_to_announce()

    def _try_to_announce(self) -> None:
        """Announce the worker; a failure delays no saga."""
        what = "the announcement of this worker"
        try:
            if self._announce is not None:
                self._edge.run(self._announce())
            self._wake_waiting()
        except ENDS_A_ROUND:
            raise
        except Exception as error:  # noqa: BLE001 - sagas come first
            self._note_failure(what, error)
        else:
            self._failing.discard(what)
        self._announced_ms = self._clock.now_ms()

    def _wake_waiting(self) -> None:
        """After an announcement, make the steps due that wait for this worker's functions."""
        if self._hand_back is None:
            return
        queues = self._queues()
        brings = (*sorted(queues), *self._hand_back.functions)
        if brings != self._brings:
            self._brings, self._wakings = brings, WAKINGS
        if self._wakings:
            self._edge.run(self._hand_back.wake(self.shards, queues))
            self._wakings -= 1

    async def round(self, shard: Shard) -> float:
        """Handle the due items of one shard; returns the seconds until the next look."""
        due_ms = await store.first_due(shard)
        now_ms = self._clock.now_ms()
        nothing_due = due_ms is None or due_ms > now_ms
        if nothing_due and abs(now_ms - self._swept_ms[shard]) < self._settings.lease_ms / 3:
            return self._pace.pause_s(due_ms, now_ms)
        items = await self._sweeper.due(shard)
        self._swept_ms[shard] = now_ms
        for item in items:
            if self._stop.is_set():
                break
            await self._handle(shard, item)
            if abs(self._clock.now_ms() - self._swept_ms[shard]) >= self._settings.lease_ms / 4:
                await self._sweeper.tick(shard)
                self._swept_ms[shard] = self._clock.now_ms()
        return 0.0 if len(items) == self._sweeper.batch else self._pace.pause_s(due_ms, now_ms)

    async def _handle(self, shard: Shard, item: Guard) -> None:
        """Handle one item; a broken saga delays no other, and is retried later each time."""
        try:
            await self._sweeper.handle(item)
        except ENDS_A_ROUND:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this item alone
            await self._put_off(shard, item, error)

    async def _put_off(self, shard: Shard, item: Guard, error: Exception) -> None:
        try:
            failures = await self._sweeper.put_off(shard, item, error)
        except UNREACHABLE:
            raise
        except StoreError as second:  # then the item is due again in two seconds
            self._note_failure(f"counting failures in {shard.stuck}", second)
            failures = 0
        what = {"item": item.member, "failures": failures, **_about(error)}
        if isinstance(error, UnknownSaga) and failures < MOST_UNKNOWN:
            log.debug("another sweeper has just removed the saga", **what)
        elif failures == NOT_COUNTED:
            self._note_failure(_beyond(shard), error)
        elif failures == 1 or failures % TOLD_AGAIN == 0:
            log.error("a due item cannot be handled, it is tried again", **what)

    def _after(self, error: Exception) -> float:
        """Log the first failure of a series; returns a pause that grows with each."""
        self._failures += 1
        if self._failures == 1:
            self._failed_at = time.monotonic()
            if isinstance(error, UNREACHABLE):
                log.warning(f"{told(self._edge, error)}: {WAITS}")
            else:
                log.warning("sweep failed, will go on trying", **_about(error))
        return min(MOST_PAUSE_S, 0.2 * 2.0 ** min(self._failures, 10))


def _beyond(shard: Shard) -> str:
    return f"handling more than {MOST_FAILURES} due items of {shard.due}"


def _about(error: Exception) -> dict[str, str]:
    """An error in a line: its message, and its place in the engine."""
    frames = traceback.extract_tb(error.__traceback__)
    flows = [frame for frame in frames if "/engine/" in frame.filename] or frames
    at = f"{flows[-1].filename.rpartition('/')[2]}:{flows[-1].lineno}" if flows else ""
    return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}", "at": at}
