"""How long did sagas take to recover from a fault?

The answer comes from their logs alone.  There are two rules:

- A killed or frozen worker holds steps.  A step was hit if that worker had claimed its attempt
  before the fault, and the attempt ended as lost after it.  (Its lease ran out, or its main process
  saw the child die.)  The step has recovered with the next claim after the loss, of the same step
  or of an undo.  If no claim follows, the loss itself counts.  The lease is part of the time.
- A server that dies or cuts connections stops all sagas.  A saga in flight at that moment has
  recovered with the next entry in its log.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Claimed, Entry, Failed, Lost
from multiagents.core.states import Kind
from multiagents.lab.chaos.plan import KILLS, FaultKind

Log = Sequence[Entry]
CHILD_DIED = frozenset({"WorkerLostError"})
"""The errors with which a main process reports a killed child."""
SKEW_MS = 50
"""How far two processes' clocks may differ, although both are corrected by the server's."""
OF_THE_SERVER = frozenset({FaultKind.KILL_SERVER, FaultKind.CUT})
ALL_KILLS = "all kills of workers"


@dataclass(frozen=True, slots=True)
class Fault:
    """An injected fault, and its time in Unix ms.  ``worker``: its target; "" for the server."""

    kind: FaultKind
    at_ms: int
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt that was lost with its worker, and when its saga continued."""

    worker: str
    claimed_ms: int
    lost_ms: int
    next_ms: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """Recovery times of the ``count`` steps or sagas that were hit; None if there are none."""

    count: int
    median_s: float | None
    p99_s: float | None
    max_s: float | None


@dataclass(frozen=True, slots=True)
class Recoveries:
    """Times by kind of fault, in ms.  ``unexplained``: losses without a fault as their cause."""

    times_ms: Mapping[FaultKind, Sequence[int]]
    unexplained: int

    def summary(self) -> dict[str, Recovery]:
        """Times by kind, and for all kills of workers together."""
        kills = [ms for kind in KILLS for ms in self.times_ms.get(kind, ())]
        each = {kind.value: summary(self.times_ms.get(kind, ())) for kind in FaultKind}
        return {**each, ALL_KILLS: summary(kills)}


def recoveries(faults: Iterable[Fault], logs: Iterable[Log]) -> Recoveries:
    """The recovery times of all faults; a loss counts for the first fault that explains it."""
    ordered = sorted(faults, key=lambda fault: fault.at_ms)
    times: dict[FaultKind, list[int]] = {}
    unexplained = 0
    for log in logs:
        for loss in losses(log):
            fault = _cause(loss, ordered)
            if fault is None:
                unexplained += 1
            else:
                times.setdefault(fault.kind, []).append(max(0, loss.next_ms - fault.at_ms))
        for fault in ordered:
            if fault.kind in OF_THE_SERVER and _in_flight(log, fault.at_ms):
                times.setdefault(fault.kind, []).append(_next_entry_ms(log, fault.at_ms))
    return Recoveries(times, unexplained)


def losses(log: Log) -> Iterator[Loss]:
    """The attempts of a saga that were lost with their workers."""
    claims = {_attempt(entry): entry for entry in log if isinstance(entry, Claimed)}
    for position, entry in enumerate(log):
        if isinstance(entry, Lost | Failed) and _is_loss(entry):
            claim = claims.pop(_attempt(entry), None)
            if claim is not None:
                next_ms = _next_claim_ms(log[position + 1 :], claim)
                yield Loss(claim.worker, claim.at_ms, entry.at_ms, next_ms or entry.at_ms)


def summary(times_ms: Sequence[int]) -> Recovery:
    """The median, the 99th percentile (nearest rank) and the maximum, in seconds."""
    if not times_ms:
        return Recovery(0, None, None, None)
    ordered = sorted(times_ms)
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return Recovery(len(ordered), statistics.median(ordered) / 1000, p99 / 1000, ordered[-1] / 1000)


def _attempt(entry: Claimed | Failed | Lost) -> tuple[AttemptRef, str]:
    return entry.ref, entry.nonce


def _is_loss(entry: Lost | Failed) -> bool:
    return isinstance(entry, Lost) or entry.error.type in CHILD_DIED


def _next_claim_ms(rest: Log, lost: Claimed) -> int | None:
    for entry in rest:
        if not isinstance(entry, Claimed):
            continue
        again = entry.step == lost.step and entry.kind is lost.kind
        undoes = entry.kind is Kind.UNDO and lost.kind is Kind.RUN
        if again or undoes:
            return entry.at_ms
    return None


def _cause(loss: Loss, faults: Iterable[Fault]) -> Fault | None:
    for fault in faults:
        if fault.worker == loss.worker and (
            loss.claimed_ms <= fault.at_ms + SKEW_MS and fault.at_ms <= loss.lost_ms
        ):
            return fault
    return None


def _in_flight(log: Log, at_ms: int) -> bool:
    return bool(log) and log[0].at_ms <= at_ms < log[-1].at_ms


def _next_entry_ms(log: Log, at_ms: int) -> int:
    return next(entry.at_ms for entry in log if entry.at_ms > at_ms) - at_ms
