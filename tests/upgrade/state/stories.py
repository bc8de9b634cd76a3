"""How does each saga of a stored state get into its situation?

Each saga has one function, whose name is the saga's id and which leaves the saga unfinished.  Its
return value happens after the state is read again: ``["ask", COMMAND]`` of an operator, or
``["report", step, attempt, nonce]`` of a worker that was taken for dead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Failure, Requested, Unroutable
from multiagents.core.fields import outbox_field
from multiagents.core.states import Action, Kind
from multiagents.storage import sagas as store
from tests.upgrade.state import work
from tests.upgrade.state.player import LEASE_S, QUEUE, Player

Later = list[list[Any]]
Story = Callable[[Player], Later | None]

LOST_S = 4 * LEASE_S
RESUME, RETRY = ["ask", "resume"], ["ask", "retry"]


# ---- those that time has to pass for come first ----


def reported_lost(p: Player) -> Later:
    """The saga is compensated, and its only attempt may still come back."""
    p.start("reported_lost", work.once)
    held = p.claim("reported_lost")
    p.pass_time("reported_lost", LOST_S)
    p.run("reported_lost")
    return [["report", held.step, held.attempt, held.nonce]]


def undone_again(p: Player) -> None:
    """A late success came after the undo, so a second generation of undo is due."""
    p.start("undone_again", work.once)
    held = p.claim("undone_again")
    p.pass_time("undone_again", LOST_S)
    p.run("undone_again")
    p.report("undone_again", held.step, held.attempt, held.nonce)


def second_attempt(p: Player) -> Later:
    """The first attempt was lost, and comes back while the second one is queued."""
    p.start("second_attempt", work.chain)
    held = p.claim("second_attempt")
    p.pass_time("second_attempt", LOST_S)
    return [["report", held.step, held.attempt, held.nonce]]


def paused_over_a_timer(p: Player) -> Later:
    """The retry came due during the pause."""
    p.start("paused_over_a_timer", work.flakes)
    p.run("paused_over_a_timer")
    p.ask("paused_over_a_timer", "pause")
    p.pass_time("paused_over_a_timer", 3)
    return [RESUME]


# ---- forward ----


def sent(p: Player) -> None:
    """Its first message waits in the queue."""
    p.start("sent", work.chain)


def not_sent(p: Player) -> None:
    """Its starter died before the first message was out."""
    p.sends = False
    p.run_until("start", lambda: p.start("not_sent", work.chain))
    p.sends = True


def half_way(p: Player) -> None:
    """Two of three steps are done."""
    p.start("half_way", work.chain)
    p.run("half_way", 2)


def at_work(p: Player) -> None:
    """A worker has claimed it and recorded progress, and is lost."""
    p.start("at_work", work.checks)
    held = p.claim("at_work")
    notes = {"p:s0": '{"progress":0.5,"note":"half"}', "k:s0": '{"page":7}'}
    p.engine.renew([held], {held.nonce: notes})


def waits_to_retry(p: Player) -> None:
    """The retry follows the policy of the worker, which the log has kept."""
    p.start("waits_to_retry", work.flakes)
    p.run("waits_to_retry")


def nobody_decided(p: Player) -> None:
    """The process died between the entry and the decision."""
    p.start("nobody_decided", work.chain)
    p.run("nobody_decided")
    asked = Requested(p.clock.now_ms(), Action.CANCEL, "cancel-it", "somebody", "a reason")
    p.edge.execute(store.append(p.coordinator.repository.keys("nobody_decided"), asked))


def has_a_deadline(p: Player) -> None:
    """A worker holds the step beyond the saga's deadline."""
    p.start("has_a_deadline", work.late)
    p.run("has_a_deadline")
    p.claim("has_a_deadline")


def paused(p: Player) -> Later:
    """The sent command was withdrawn."""
    p.start("paused", work.chain)
    p.run("paused")
    p.ask("paused", "pause")
    return [RESUME]


def paused_at_work(p: Player) -> Later:
    """The running attempt has ended since."""
    p.start("paused_at_work", work.chain)
    held = p.claim("paused_at_work")
    p.ask("paused_at_work", "pause")
    p.end(held)
    return [RESUME]


def chose(p: Player) -> None:
    """Conditions have read a result; steps were skipped, others follow unchosen."""
    p.start("chose", work.chooses)
    p.run("chose")


def held_back(p: Player) -> None:
    """A few branches of a wide fan-out are done or sent, and the others wait in the outbox."""
    p.start("held_back", work.fan)
    p.run("held_back", 3)


def plain_sent(p: Player) -> None:
    """A user's Celery task, claimed on its behalf, waits in its queue."""
    p.start("plain_sent", work.plains)


def plain_half_way(p: Player) -> None:
    """One such task has ended and the next one is sent."""
    p.start("plain_half_way", work.plains)
    p.run("plain_half_way")


# ---- the point of no return ----


def asks_for_the_pivot(p: Player) -> None:
    """The saga was cancelled with its pivot sent; whether it was claimed is not known yet."""
    p.start("asks_for_the_pivot", work.pivots)
    p.run("asks_for_the_pivot")
    p.run_until("commit", lambda: p.ask("asks_for_the_pivot", "cancel"))


def parked_behind_the_pivot(p: Player) -> Later:
    """A dead letter after the pivot: nothing is undone any more."""
    p.start("parked_behind_the_pivot", work.pivots)
    p.run("parked_behind_the_pivot", 3)
    return [RETRY]


def nobody_knows_its_worker(p: Player) -> Later:
    """The step is parked, because no running process has its worker."""
    saga = "nobody_knows_its_worker"
    p.start(saga, work.chain)
    p.message(saga)
    error = Failure("UnknownWorker", "no running worker knows 'fx_do'")
    entry = Unroutable(p.clock.now_ms(), Kind.RUN, "s0", 1, error)
    field = outbox_field(AttemptRef(Kind.RUN, "s0", 1))
    p.edge.run(p.coordinator.append(saga, entry, taken=field))
    return [RETRY]


# ---- backward ----


def undoes(p: Player) -> None:
    """One undo is done, one running, one to come."""
    p.start("undoes", work.breaks)
    p.run("undoes", 4)
    p.claim("undoes")


def undo_waits_to_retry(p: Player) -> None:
    """An undo has failed once."""
    p.start("undo_waits_to_retry", work.undo_flakes)
    p.run("undo_waits_to_retry", 3)


def undo_is_parked(p: Player) -> Later:
    """The saga has failed, and its dead letters keep it from removal."""
    p.start("undo_is_parked", work.undo_parks)
    p.run("undo_is_parked", 4)
    return [RETRY]


def undoes_branches(p: Player) -> None:
    """Independent branches are undone at the same time."""
    p.start("undoes_branches", work.fan_undo)
    p.run("undoes_branches", 5)
    p.claim("undoes_branches")


def rolled_back(p: Player) -> None:
    """The saga completed, delivered its outcome, and is being undone by an operator."""
    p.start("rolled_back", work.chain)
    p.run("rolled_back", 3)
    p.ask("rolled_back", "rollback")
    p.run("rolled_back")


# ---- ended ----


def completed(p: Player) -> None:
    """Its log is compressed, its result stored."""
    p.start("completed", work.chain)
    p.run("completed", 3)


def not_told(p: Player) -> None:
    """The saga completed, and the process died before it delivered the outcome."""
    p.start("not_told", work.once)
    p.sends = False
    held = p.claim("not_told")
    p.run_until("advance", lambda: p.engine.succeed(held, '{"s0":1}', go_on=False))
    p.sends = True


def compensated(p: Player) -> None:
    """The saga is undone and over."""
    p.start("compensated", work.breaks)
    p.run("compensated", 6)


def terminated(p: Player) -> None:
    """An operator ended the saga without undo."""
    p.start("terminated", work.chain)
    p.run("terminated")
    p.ask("terminated", "terminate")


def two_wait(p: Player) -> None:
    """Started twice with one key; the second stands in a chain and has an errback."""
    canvas = {"chain": [_signature("after")], "errbacks": [_signature("alas")]}
    given = {"idempotency_key": "two_wait", "on_conflict": "first"}
    p.host.call("start", work.breaks, {"sku": "two"}, task_id="first", **given)
    saga = p.host.call("start", work.breaks, {"sku": "2"}, task_id="other", canvas=canvas, **given)
    p.run(saga)


def _signature(arg: str) -> dict[str, Any]:
    options = {"queue": QUEUE}
    found = {"task": "fx.plain", "args": [arg], "kwargs": {}, "options": options}
    return {**found, "subtask_type": None, "immutable": True}


STORIES: tuple[Story, ...] = (
    reported_lost,
    undone_again,
    second_attempt,
    paused_over_a_timer,
    sent,
    not_sent,
    half_way,
    at_work,
    waits_to_retry,
    nobody_decided,
    has_a_deadline,
    paused,
    paused_at_work,
    chose,
    held_back,
    plain_sent,
    plain_half_way,
    asks_for_the_pivot,
    parked_behind_the_pivot,
    nobody_knows_its_worker,
    undoes,
    undo_waits_to_retry,
    undo_is_parked,
    undoes_branches,
    rolled_back,
    completed,
    not_told,
    compensated,
    terminated,
    two_wait,
)
