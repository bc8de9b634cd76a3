"""What keeps the sweeps going?

One daemon thread in every worker's main process: not a timer of Celery's, because those stand
still while Redis is away.  Looking whether anything is due costs one command; only then, and
often enough for the tick (E9), does a sweep run.  The thread also keeps the catalog fresh and the
clock corrected.  It survives any failure of the server: it waits and looks again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from multiagents.core.clock import Clock
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.settings import Settings
from multiagents.orchestrator.sweeper import BATCH, Sweeper
from multiagents.storage import sagas as store
from multiagents.storage.calls import Flow, ask
from multiagents.storage.client import Edge, StoreError
from multiagents.storage.keys import Shard
from multiagents.storage.sagas import Guard

ANNOUNCE_MS = 10_000
"""How often a worker says that it is alive."""
CORRECT_MS = 60_000
"""How often the host's clock is compared with the server's."""
MOST_PAUSE_S = 5.0
"""The longest wait between two tries while the server is away."""

log = structlog.get_logger(__name__)


class SweeperThread:
    """Sweeps all shards until it is stopped."""

    def __init__(
        self,
        sweeper: Sweeper,
        edge: Edge,
        *,
        settings: Settings,
        clock: Clock,
        announce: Callable[[], Flow[None]],
    ) -> None:
        self._sweeper = sweeper
        self._edge = edge
        self._settings = settings
        self._clock = clock
        self._announce = announce
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="multiagents-sweeper", daemon=True)
        self._swept_ms = self._announced_ms = self._corrected_ms = 0
        self._failures = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the sweep at hand."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                pause_s = self.once()
                self._failures = 0
            except Exception as error:  # noqa: BLE001 - the thread must outlive everything
                pause_s = self._after(error)
            self._stop.wait(pause_s)

    def once(self) -> float:
        """One round over all shards; seconds until the next is worth it."""
        self._housekeep()
        shards = range(self._settings.shards)
        return min(self._edge.run(self.round(Shard(number))) for number in shards)

    def _housekeep(self) -> None:
        now_ms = self._clock.now_ms()
        if now_ms - self._corrected_ms >= CORRECT_MS:
            self._edge.correct(self._clock)
            self._corrected_ms = self._clock.now_ms()
        if now_ms - self._announced_ms >= ANNOUNCE_MS:
            self._edge.run(self._announce())
            self._announced_ms = self._clock.now_ms()

    def round(self, shard: Shard) -> Flow[float]:
        """Look at one shard and act on what is due; seconds until the next look is worth it."""
        due_ms = yield from ask(store.first_due(shard))
        now_ms = self._clock.now_ms()
        nothing_due = due_ms is None or due_ms > now_ms
        if nothing_due and now_ms - self._swept_ms < self._settings.lease_ms / 3:
            return self._pause_s(due_ms, now_ms)
        items = yield from self._sweeper.due(shard)
        self._swept_ms = now_ms
        for item in items:
            if self._stop.is_set():
                break
            yield from self._handle(item)
        return 0.0 if len(items) == BATCH else self._pause_s(due_ms, now_ms)

    def _handle(self, item: Guard) -> Flow[None]:
        """One broken saga must not keep the others waiting; it comes round again."""
        try:
            yield from self._sweeper.handle(item)
        except StoreError:
            raise
        except UnknownSaga:
            log.debug("another sweeper has just removed the saga", item=item.member)
        except Exception as error:
            log.error("cannot handle a due item", item=item.member, exc_info=error)

    def _pause_s(self, due_ms: float | None, now_ms: int) -> float:
        # A tick must not be half a lease late, or no lease would ever end (E9).
        longest = min(self._settings.sweep_s * 0.95, self._settings.lease_s / 8)
        if due_ms is None or due_ms <= now_ms:
            return longest
        return min(longest, (due_ms - now_ms) / 1000 + 0.001)

    def _after(self, error: Exception) -> float:
        """Say once that sweeping fails, and wait longer each time."""
        self._failures += 1
        if self._failures == 1:
            log.warning("sweep failed, will go on trying", error=str(error), exc_info=error)
        return min(MOST_PAUSE_S, 0.2 * 2.0 ** min(self._failures, 10))
