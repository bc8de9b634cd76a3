"""What can a person ask of one saga?

Each command goes into the saga's log with who asked and why, and the saga is given back as it is
then.  One that its state does not allow is refused before that, so that the log does not grow;
one that was overtaken meanwhile stands in the log, and is refused after it.
"""

from __future__ import annotations

import getpass
from dataclasses import replace
from typing import Any

from multiagents.core import ids
from multiagents.core.clock import Clock
from multiagents.core.entries import Requested
from multiagents.core.exceptions import InvalidInput, UnknownSaga
from multiagents.core.json_text import encodable
from multiagents.core.settings import Settings
from multiagents.core.states import Action, StepState, UndoState
from multiagents.engine.coordinator import Coordinator
from multiagents.operations.moving_action import stands
from multiagents.operations.owners import Owner, Owners, known_text
from multiagents.operations.queries import Queries
from multiagents.saga.allowed import SETTLING, OneLetter, caution, done, not_allowed, refusal
from multiagents.saga.state import Saga

Shown = dict[str, Any]


class Actions:
    """Moves sagas by a person's word.

    ``by``: who asks; None: the setting ``operator``, or else the system's user.  Every method takes
    the Celery id of any start of the saga, too; retry, skip and resolve also that of a step's
    message, which then names the step.  Every method raises UnknownSaga, and NotAllowed where the
    state does not allow it, saying what would be.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        owners: Owners,
        queries: Queries,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._coordinator = coordinator
        self._owners = owners
        self._queries = queries
        self._settings = settings
        self._clock = clock

    async def pause(self, saga_id: str, *, by: str | None = None, reason: str = "") -> Shown:
        """Hold back new work; running steps end, timers are only recorded.

        Of a paused saga nothing changes: the first pause stands, with its ``by`` and ``reason``.
        """
        return await self.ask(saga_id, Action.PAUSE, by, reason)

    async def resume(self, saga_id: str, *, by: str | None = None, reason: str = "") -> Shown:
        """Let a paused saga go on."""
        return await self.ask(saga_id, Action.RESUME, by, reason)

    async def cancel(self, saga_id: str, *, by: str | None = None, reason: str = "") -> Shown:
        """Stop a saga and undo what was done.

        After the point of no return NotAllowed is raised, and the saga asks for attention.  Of a
        cancelled saga nothing changes: the first cancel stands.
        """
        return await self.ask(saga_id, Action.CANCEL, by, reason)

    async def rollback(self, saga_id: str, *, by: str | None = None, reason: str = "") -> Shown:
        """Undo a completed saga, last step first."""
        return await self.ask(saga_id, Action.ROLLBACK, by, reason)

    async def terminate(self, saga_id: str, *, by: str | None = None, reason: str = "") -> Shown:
        """End a saga as failed without undoing anything; its dead letters are closed."""
        return await self.ask(saga_id, Action.TERMINATE, by, reason)

    async def retry(
        self, saga_id: str, step: str = "", *, by: str | None = None, reason: str = ""
    ) -> Shown:
        """Try a dead letter of the saga again, with all its attempts; "" = all of them."""
        return await self.ask(saga_id, Action.RETRY, by, reason, step)

    async def skip(
        self, saga_id: str, step: str = "", *, reason: str, by: str | None = None
    ) -> Shown:
        """Go on without a parked step, or leave a parked undo undone; "" = all of them.

        Raises InvalidInput without a reason.
        """
        return await self.ask(saga_id, Action.SKIP, by, reason, step)

    async def resolve(
        self, saga_id: str, step: str = "", *, reason: str, by: str | None = None
    ) -> Shown:
        """Take a parked step or undo for done: somebody did it by hand; "" = all of them.

        A step resolved so has the result of an attempt that was given up and reported success
        before that, else an empty one, whatever comes later.  Of a saga without dead letters its
        attention is closed.  Raises InvalidInput without a reason.
        """
        return await self.ask(saga_id, Action.RESOLVE, by, reason, step)

    async def prospect(self, saga_id: str, action: Action) -> str:
        """What a person should know before a command; empty where it does just what it says.

        For a question that comes first.  Raises NotAllowed for what would be refused, UnknownSaga.
        """
        saga, workflow = await self._coordinator.repository.current(saga_id)
        why_not = refusal(workflow, saga, action)
        if why_not:
            raise not_allowed(workflow, saga, action, why_not)
        return caution(workflow, saga, action) or _left_at_work(saga, action)

    async def ask(
        self,
        saga_id: str,
        action: Action,
        by: str | None,
        reason: str,
        step: str = "",
        letter: OneLetter | None = None,
    ) -> Shown:
        """Record a command and give the saga as it is then.

        ``letter``: which dead letter of the step is meant; None: whichever there is.
        """
        check_reason(action, reason)
        saga_id = known_text(saga_id)
        repository = self._coordinator.repository
        try:
            found = await repository.reading(repository.keys(saga_id))
        except UnknownSaga:
            owner = await self._owners.owner(saga_id)
            if owner is None:
                raise
            saga_id, step = owner.saga_id, step or _step_meant(owner, saga_id, action)
            found = await repository.reading(repository.keys(saga_id))
        before, workflow = found.saga, found.workflow
        why_not = refusal(workflow, before, action, step, letter)
        if why_not:
            raise not_allowed(workflow, before, action, why_not)
        if stands(before, action):
            return await self._queries.get(saga_id)
        who, why = encodable(operator_name(self._settings, by)), encodable(reason)
        entry = Requested(self._clock.now_ms(), action, ids.nonce(), who, why, step)
        if letter is not None:
            kind = letter[0]
            since_ms = before.steps[step].of(kind).ended_at
            entry = replace(entry, letter=kind, parked_at=since_ms)
        saga = await self._coordinator.order(found, entry)
        if not done(before, saga, action, step, letter):
            why_not = "; ".join(saga.attention) or f"it is {saga.state} by now"
            raise not_allowed(workflow, saga, action, why_not)
        return await self._queries.shown(saga, workflow)


def operator_name(settings: Settings, by: str | None) -> str:
    """Who asks, for the log: as given, as the settings name the operator, or the system's user."""
    return by or settings.operator or _user()


def _left_at_work(saga: Saga, action: Action) -> str:
    """What a cancel waits for."""
    names = [repr(name) for name, step in saga.steps.items() if step.run.state is StepState.RUNNING]
    names += [
        f"the undo of {name!r}"
        for name, step in saga.steps.items()
        if step.undo.state is UndoState.RUNNING
    ]
    if action is not Action.CANCEL or not names:
        return ""
    return f"still at work, and let end first: {', '.join(names)}"


def _step_meant(owner: Owner, given: str, action: Action) -> str:
    """The step of a Celery id.  Raises InvalidInput where a whole saga would be moved by it."""
    if owner.step and action not in SETTLING:
        raise InvalidInput(
            f"{given!r} is a message of step {owner.step!r}, and {action} moves a whole saga:"
            f" give the id of the saga, {owner.saga_id}"
        )
    return owner.step


def check_reason(action: Action, reason: str) -> None:
    """Raise InvalidInput where a command needs a reason and has none."""
    if action in (Action.SKIP, Action.RESOLVE) and not reason.strip():
        raise InvalidInput(f"{action} needs a reason: it stays in the saga's history")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a user that has no name
        return ""
