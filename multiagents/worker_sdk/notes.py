"""How do the progress and the checkpoints of running attempts reach the server?

Progress is for people: no step waits for it or fails by it.  While the server is away, the newest
progress is kept here and sent later.  The next attempt relies on a checkpoint, so its call returns
when the server has stored it.  It waits for a server that is away, until the step's timeout.

On an event loop that wait would stop all other async steps.  There a checkpoint is kept like
progress, and sent before the attempt's report.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from multiagents.core.clock import Clock
from multiagents.core.exceptions import StepTimeout, WorkerExecutionError
from multiagents.core.ports import Assignment
from multiagents.storage.client import UNREACHABLE, StoreError
from multiagents.worker_sdk import loop

log = structlog.get_logger(__name__)

Renew = Callable[[list[Assignment], dict[str, dict[str, str]]], list[Assignment]]
"""Stores notes by nonce, and returns the attempts whose leases are lost."""
Persist = Callable[..., Any]
"""Repeats a call until the store answers."""
Kept = tuple[Assignment, Mapping[str, str]]

SENT_LATER = "progress is not stored, the newest is sent later"
LOOP_LATER = "a checkpoint is not stored yet, it is sent later: its event loop cannot wait"
WAITS = "a checkpoint waits for its server"
GIVEN_UP = "a checkpoint is given up"


def once(call: Callable[[], Any], **_: Any) -> Any:
    """Call once, where there is no server to wait for."""
    return call()


class Notes:
    """Sends the progress and checkpoints of running attempts.

    ``soon`` is `Engine.renew` without retries, ``renew`` with them; ``is_away``: the server has
    not answered the last call.
    """

    def __init__(
        self,
        renew: Renew,
        *,
        soon: Renew,
        clock: Clock,
        persist: Persist,
        is_away: Callable[[], bool],
    ) -> None:
        self._renew = renew
        self._soon = soon
        self._clock = clock
        self._persist = persist
        self._is_away = is_away
        self._unsent: dict[str, Kept] = {}
        self._told = False
        self._lock = threading.Lock()
        self._sending = threading.Lock()

    def __bool__(self) -> bool:
        """Whether there are unsent notes."""
        return bool(self._unsent)

    def progress(self, held: Assignment, note: Mapping[str, str]) -> bool:
        """Store it now or later; False if the lease is lost."""
        return self._now_or_later(held, note, SENT_LATER)

    def checkpoint(self, held: Assignment, note: Mapping[str, str]) -> bool:
        """Store it, however long that takes; False if the lease is lost.

        On an event loop, store it now or later.  Raises StepTimeout when the step's time is over,
        and WorkerExecutionError when the wait is given up, because other sagas need the process.
        """
        if loop.on_loop_thread():
            return self._now_or_later(held, note, LOOP_LATER)
        self._drop(held.nonce, note)

        def store() -> bool:
            if held.deadline_ms and self._clock.now_ms() >= held.deadline_ms:
                raise StepTimeout.of(held.worker, held.timeout_s)
            return not self._renew([held], {held.nonce: dict(note)})

        try:
            return bool(self._persist(store, kept=WAITS, given_up=GIVEN_UP))
        except StoreError as error:
            why = f"its server did not take it ({type(error).__name__})"
            raise WorkerExecutionError(f"checkpoint of {held.step!r} not stored: {why}") from error

    def send(self) -> None:
        """Send the unsent notes, up to the first failure; that attempt comes last next time."""
        for nonce in list(self._unsent):
            with self._sending:
                kept = self._unsent.get(nonce)
                if kept is None:
                    continue
                try:
                    self._soon([kept[0]], {nonce: dict(kept[1])})
                except StoreError:
                    self._put_last(nonce)
                    return
                self._remove(nonce, kept)
        self._told = False

    def flush(self, held: Assignment) -> None:
        """Send the unsent notes of an attempt before its report.

        Raises the store's error while its server is away; a refused note is dropped.
        """
        if held.nonce not in self._unsent:
            return
        with self._sending:
            kept = self._unsent.get(held.nonce)
            if kept is None:
                return
            try:
                self._renew([held], {held.nonce: dict(kept[1])})
            except UNREACHABLE:
                raise
            except StoreError as error:
                log.warning("a note is dropped", step=held.step, error=type(error).__name__)
            self._remove(held.nonce, kept)

    def forget(self, nonce: str) -> None:
        """Drop the notes of an attempt that is over."""
        with self._lock:
            self._unsent.pop(nonce, None)

    def _now_or_later(self, held: Assignment, note: Mapping[str, str], later: str) -> bool:
        if held.nonce in self._unsent or self._is_away():
            self._keep(held, note, later, "away")
            return True
        try:
            return not self._soon([held], {held.nonce: dict(note)})
        except StoreError as error:
            self._keep(held, note, later, type(error).__name__)
            return True

    def _keep(self, held: Assignment, note: Mapping[str, str], later: str, why: str) -> None:
        with self._lock:
            before = self._unsent.get(held.nonce, (held, {}))[1]
            self._unsent[held.nonce] = (held, {**before, **note})
            tell, self._told = not self._told, True
        if tell:
            log.warning(later, why=why, saga=held.saga_id, step=held.step, attempt=held.attempt)

    def _drop(self, nonce: str, note: Mapping[str, str]) -> None:
        """Drop older unsent values, which must not overwrite this one."""
        if nonce not in self._unsent:
            return
        with self._sending, self._lock:
            held, before = self._unsent[nonce]
            left = {field: text for field, text in before.items() if field not in note}
            self._unsent[nonce] = (held, left)

    def _put_last(self, nonce: str) -> None:
        with self._lock:
            if (kept := self._unsent.pop(nonce, None)) is not None:
                self._unsent[nonce] = kept

    def _remove(self, nonce: str, sent: Kept) -> None:
        """Remove a sent note, unless a newer one was kept meanwhile."""
        with self._lock:
            if self._unsent.get(nonce) is sent:
                del self._unsent[nonce]
