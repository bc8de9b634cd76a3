"""How long did it take until sagas moved on?

Read from their logs alone.  Two rules, because two things can be known:

- A worker that is killed or frozen holds steps.  A step was hit if its attempt was claimed by that
  worker before the fault and ended in the log as lost (its lease ran out, or its main process saw
  the child die) after it.  It has recovered with the next claim after the loss: of the same step,
  or of an undo.  Where none follows, with the loss itself.  The lease is part of the time.
- A server that dies, or cuts connections, stops all sagas.  Those in flight at that moment have
  recovered with the next entry of their log.
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
"""The errors by which a main process reports a child that was killed."""
SKEW_MS = 50
"""By so much may two processes' clocks, both corrected by the server's, disagree."""
OF_THE_SERVER = frozenset({FaultKind.KILL_SERVER, FaultKind.CUT})
ALL_KILLS = "all kills of workers"


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done, and when it was done, Unix ms.  ``worker``: to whom; "" for the server."""

    kind: FaultKind
    at_ms: int
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt that was lost with its worker, and when its saga went on."""

    worker: str
    claimed_ms: int
    lost_ms: int
    next_ms: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took, over ``count`` steps or sagas that were hit; None if none was."""

    count: int
    median_s: float | None
    p99_s: float | None
    max_s: float | None


@dataclass(frozen=True, slots=True)
class Recoveries:
    """Times by kind of fault, in ms.  ``unexplained``: losses that no fault accounts for."""

    times_ms: Mapping[FaultKind, Sequence[int]]
    unexplained: int

    def summary(self) -> dict[str, Recovery]:
        """By kind, and of all kills of workers together."""
        kills = [ms for kind in KILLS for ms in self.times_ms.get(kind, ())]
        each = {kind.value: summary(self.times_ms.get(kind, ())) for kind in FaultKind}
        return {**each, ALL_KILLS: summary(kills)}


def recoveries(faults: Iterable[Fault], logs: Iterable[Log]) -> Recoveries:
    """The times of all faults, each loss counted for the first fault that explains it."""
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
    """Median, 99th percentile (nearest rank) and the longest, in seconds."""
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
