"""How do orders come in while the server comes and goes?

A thread starts one saga after the other, evenly over the run.  A start that fails is repeated
under the same idempotency key until it returns; only then is the saga expected to exist.
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
"""Between two tries of one start."""


class Feeder:
    """Starts the plan's sagas.  ``started``: saga id -> its order, of each start that returned."""

    def __init__(self, plan: ChaosPlan, session: Session) -> None:
        self.started: dict[str, dict[str, Any]] = {}
        self.retried = 0
        """Starts that had to be repeated."""
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
        """Whether all are started.  Raises what the thread has died of."""
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
        except Exception as error:  # noqa: BLE001 - `done` raises it where somebody sees it
            self._error = error

    def _start(self, number: int) -> None:
        given = order(self._plan.seed, number, self._plan.step_s)
        key = f"chaos {self._plan.seed} {number}"
        tries = 0
        while not self._stop.is_set():
            tries += 1
            try:
                saga_id = self._session.call("start", WORKFLOW, given, idempotency_key=key)
            except UNREACHABLE:  # no answer says nothing: the saga may be there, or not
                self._stop.wait(AGAIN_S)
                continue
            self.started[saga_id] = given
            self.retried += tries > 1
            return
