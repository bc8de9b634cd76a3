"""How does a late waiter get the outcome?

A second start of a saga waits for the same outcome.  Waiters get the first outcome, even if an
operator has acted since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from multiagents.core.clock import Clock
from multiagents.core.entries import decode
from multiagents.engine import messages
from multiagents.engine.dispatcher import Dispatcher, note_refused
from multiagents.engine.repository import Repository
from multiagents.engine.saga_reader import blank_saga
from multiagents.saga.decide import fold
from multiagents.saga.outcome import fields_of
from multiagents.storage import outcomes
from multiagents.storage import sagas as store
from multiagents.storage.commit import RefusedWrite
from multiagents.storage.keys import SagaKeys
from multiagents.workflows.workflow import Workflow


class Ends:
    """Delivers the outcome of an ended saga to late waiters."""

    def __init__(
        self,
        repository: Repository,
        *,
        dispatcher: Dispatcher,
        clock: Clock,
        nonce: Callable[[], str],
    ) -> None:
        self._repository = repository
        self._dispatcher = dispatcher
        self._clock = clock
        self._nonce = nonce

    async def join(self, keys: SagaKeys) -> None:
        """Deliver the outcome of an ended saga to a second start.

        If the saga has not ended, its end will deliver to this waiter too.
        """
        while True:
            found = await self._repository.reading(keys)
            if not found.decided.delivered:
                return None
            due_ms = self._clock.now_ms() + messages.UNCONFIRMED_MS
            owed = outcomes.owe(keys, found.view.version, due_ms, nonce=self._nonce())
            if await owed:
                # From here on a sweep delivers, should this process die or the results be away.
                return note_refused(keys, await self.deliver_again(keys, found.workflow))

    async def deliver_again(self, keys: SagaKeys, workflow: Workflow) -> Sequence[RefusedWrite]:
        """Deliver the first outcome to all waiters, even if an operator has acted since.

        Returns the results that the server refused.
        """
        end = await self._repository.end(keys)
        # Conditions may read the result of any step.
        data = await store.data(keys) if workflow.has_conditions else {}
        entries = [decode(text) for text in end.log or ()]
        if not entries or (workflow.has_conditions and not data):
            return ()  # its retention has just ended
        saga = blank_saga(workflow, keys.id, entries[0].at_ms, data)
        for place, entry in enumerate(entries, start=1):
            saga = fold(workflow, saga, (entry,)).saga
            if saga.delivered:
                data = await outcomes.read_data(keys, fields_of(workflow, saga.state))
                if not data:
                    return ()
                end = replace(end, data=data)
                now = fold(workflow, saga, entries[place:]).saga
                return await self._dispatcher.deliver(keys, workflow, saga, end, now=now)
        return ()
