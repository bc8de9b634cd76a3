"""How do orders come in while the server fails and restarts?

A thread starts the sagas one by one, evenly over the run.  It repeats a failed start under the same
idempotency key until it returns.  Only then must the saga exist.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from multiagents.cli.session import Session
from multiagents.lab.chaos.orders import WORKFLOW, order
from multiagents.lab.chaos.plan import ChaosPlan
from multiagents.storage.client import UNREACHABLE

AGAIN_S = 0.1
"""Seconds between two tries of one start."""


class Feeder:
    """Starts the plan's sagas.  ``started``: saga id -> its order, for each start that returned."""

    def __init__(self, plan: ChaosPlan, session: Session) -> None:
        self.started: dict[str, dict[str, Any]] = {}
        self.retried = 0
        """How many starts were repeated."""
        self._plan = plan
        self._session = session
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-feeder", daemon=True)

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def done(self) -> bool:
        """Whether all sagas are started.  Raises the error that ended the thread."""
        if self._error is not None:
            raise self._error
        return len(self.started) == self._plan.sagas

    def _run(self) -> None:
        began = time.monotonic()
        gap_s = self._plan.seconds / self._plan.sagas
        try:
            for number in range(self._plan.sagas):
                self._stop.wait(began + number * gap_s - time.monotonic())
                self._start(number)
        except Exception as error:  # noqa: BLE001 - `done` raises it in the main thread
            self._error = error

    def _start(self, number: int) -> None:
        given = order(self._plan.seed, number, self._plan.step_s)
        key = f"chaos {self._plan.seed} {number}"
        tries = 0
        while not self._stop.is_set():
            tries += 1
            try:
                saga_id = self._session.call("start", WORKFLOW, given, idempotency_key=key)
            except UNREACHABLE:  # without an answer the saga may exist or not
                self._stop.wait(AGAIN_S)
                continue
            self.started[saga_id] = given
            self.retried += tries > 1
            return
