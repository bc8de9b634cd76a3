"""What does a process cache of the sagas that it has moved?

The state after its own last commit, so that it can decide over the next report without a read.
Every use is checked against the stored revision (E5).  Thread-safe.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from multiagents.core.entries import Entry
from multiagents.core.states import ENDED
from multiagents.saga.state import Saga

K = TypeVar("K")
V = TypeVar("V")

DEFINITIONS = 512
"""Parsed definitions that a process keeps, and other values that it can make anew."""
CAPACITY = 256
"""Sagas cached by a process; the oldest snapshot goes first."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saga as one commit left it: the commit's revision and the position that it reached.

    ``pending``: the later entries of the log when it was read; ``texts``: these as stored;
    ``data``: the data hash at that time.
    """

    version: str
    cursor: str
    saga: Saga
    pending: tuple[Entry, ...] = ()
    texts: tuple[str, ...] = ()
    data: dict[str, str] | None = None


class Recent(Generic[K, V]):
    """The values used last; a dropped one can be made anew.  Thread-safe."""

    def __init__(self, capacity: int = DEFINITIONS) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def get(self, key: K) -> V | None:
        """A value; this counts as a use."""
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
            return found

    def put(self, key: K, value: V) -> V:
        """Keep a value, and return it."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._capacity:
                self._values.popitem(last=False)
        return value


class SagaCache:
    """The last snapshot of each saga, for the sagas moved last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()

    def get(self, saga_id: str) -> Snapshot | None:
        """The snapshot of a saga."""
        return self._snapshots.get(saga_id)

    def put(self, snapshot: Snapshot) -> None:
        """Cache a saga, unless it has ended."""
        saga = snapshot.saga
        with self._lock:
            self._snapshots.pop(saga.id, None)
            if saga.state in ENDED:
                return
            self._snapshots[saga.id] = snapshot
            if len(self._snapshots) > CAPACITY:
                self._snapshots.popitem(last=False)
