"""Which actions can an operator take on one saga?

Each action goes into the saga's log with the operator and the reason, and returns the saga as it
is afterwards.  An action that the saga's state does not allow is refused before that, so the log
does not grow.  One that another event overtakes stays in the log, and is refused afterwards.
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
    """Moves sagas by an operator's action.

    ``by``: the operator; None: the setting ``operator``, else the system's user.  Every method also
    takes the Celery id of a start of the saga; retry, skip and resolve also that of a step's
    message, which names the step.  Every method raises UnknownSaga, and NotAllowed if the state
    does not allow the action; the error names the actions that it allows.
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
        """Withhold new work; running steps end, timers are only recorded.

        A second pause changes nothing: the first one stands, with its ``by`` and ``reason``.
        """
        return await self.ask(saga_id, Action.PAUSE, by, reason)

    async def resume(self, saga_id: str, *, by: str | None = None, reason: str = "") -> Shown:
        """Continue a paused saga."""
        return await self.ask(saga_id, Action.RESUME, by, reason)

    async def cancel(self, saga_id: str, *, by: str | None = None, reason: str = "") -> Shown:
        """Stop a saga and undo its steps.

        After the point of no return this raises NotAllowed, and the saga asks for attention.  A
        second cancel changes nothing: the first one stands.
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
        """Retry a dead letter of the saga with a new set of attempts; "" = all of them."""
        return await self.ask(saga_id, Action.RETRY, by, reason, step)

    async def skip(
        self, saga_id: str, step: str = "", *, reason: str, by: str | None = None
    ) -> Shown:
        """Continue without a parked step, or give up a parked undo; "" = all of them.

        Raises InvalidInput without a reason.
        """
        return await self.ask(saga_id, Action.SKIP, by, reason, step)

    async def resolve(
        self, saga_id: str, step: str = "", *, reason: str, by: str | None = None
    ) -> Shown:
        """Mark a parked step or undo as done by hand; "" = all of them.

        If an attempt that was given up has reported success since then, the step gets its result;
        else it gets an empty one.  Later reports do not change it.  For a saga without dead
        letters this closes its attention.  Raises InvalidInput without a reason.
        """
        return await self.ask(saga_id, Action.RESOLVE, by, reason, step)

    async def prospect(self, saga_id: str, action: Action) -> str:
        """A warning for the question before an action; empty without one.

        Raises NotAllowed if the action would be refused, and UnknownSaga.
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
        """Record an action and return the saga as it is afterwards.

        ``letter``: the dead letter of the step; None: any.
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
    """The operator for the log: as given, else that of the settings, else the system's user."""
    return by or settings.operator or _user()


def _left_at_work(saga: Saga, action: Action) -> str:
    """The warning that names the running steps and undos for which a cancel waits."""
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
    """The step of a Celery id.  Raises InvalidInput if the action moves a whole saga."""
    if owner.step and action not in SETTLING:
        raise InvalidInput(
            f"{given!r} is a message of step {owner.step!r}, and {action} moves a whole saga:"
            f" give the id of the saga, {owner.saga_id}"
        )
    return owner.step


def check_reason(action: Action, reason: str) -> None:
    """Raise InvalidInput if an action needs a reason and has none."""
    if action in (Action.SKIP, Action.RESOLVE) and not reason.strip():
        raise InvalidInput(f"{action} needs a reason: it stays in the saga's history")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a user that has no name
        return ""
