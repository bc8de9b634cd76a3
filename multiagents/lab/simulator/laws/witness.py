"""Which laws must hold at the moment of a message or a renewal?

The final state cannot show all violations, because the engine may have repaired them by then.  The
witness reads the store when any process sends a message or renews a lease.

Rule 1: no message is sent before its attempt is on record.  E13: a plain task's message is sent
only once, and not before its claim.  (The witness does not see messages that scripts send.)  E2: a
renewed lease exists; no process revives a lost one.  E21: a message that its queue refused does not
count as sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiagents.core.entries import decode
from multiagents.core.fields import claim_field, outbox_field
from multiagents.engine.messages import Message, Publish, outbox_value
from multiagents.engine.saga_reader import blank_saga
from multiagents.lab.simulator.broker import REFUSING, message_of
from multiagents.lab.simulator.laws.violations import law
from multiagents.lab.simulator.store import Store
from multiagents.saga.commands import Dispatch
from multiagents.saga.decide import decide
from multiagents.saga.state import Saga
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call
from multiagents.storage.replies import Committed, hash_of
from multiagents.workflows.workflow import Workflow

COMMITTING = frozenset({"start", "commit", "advance"})
UNSENT = outbox_value(0, 0)


class Witness:
    """Judges calls and messages as they happen.  Raises LawBroken."""

    def __init__(self, kept: Store, workflows: Mapping[str, Workflow]) -> None:
        self._store, self._workflows = kept, workflows
        self._sent: set[tuple[Any, ...]] = set()

    def called(self, call: Any, reply: Any) -> None:
        """Judge a call that has been performed."""
        if not isinstance(call, Call):
            return
        if call.script == "renew" and reply:
            self._renewed(call)
        elif call.script in COMMITTING and REFUSING in call.args and _stands(reply):
            self._refused(call)

    def publishes(self, effect: Publish) -> None:
        """Judge messages that are about to be sent."""
        for message in effect.messages:
            what = (message.saga_id, message.ref)
            if what not in self._sent:
                self._intended(message)
                self._sent.add(what)
            elif message.plain:
                law(self._store.was_set_back(message.saga_id), f"{message} is sent twice (E13)")

    def _refused(self, call: Call[Any]) -> None:
        """Judge a commit with messages that their queue refuses."""
        args = call.args
        for text in (args[at + 1] for at, each in enumerate(args[:-1]) if each == REFUSING):
            message = message_of(str(text))
            keys = self._store.keys(message.saga_id)
            client = self._store.client_of(keys.id)
            outbox = outbox_field(message.ref)
            field = claim_field(message.kind, message.step) if message.plain else outbox
            value = (client.hget(keys.work, field) or b"").decode()
            unsent = "|-" in value if message.plain else value == UNSENT
            law(unsent, f"{field} of {keys.id}: {value}, although its queue refused it (E21)")

    def _renewed(self, call: Call[Any]) -> None:
        work, due, _ = call.keys
        field, nonce, member = map(str, call.args[:3])
        saga_id = work.split(":", 3)[3]
        client = self._store.client_of(saga_id)
        claim = client.hget(work, field)
        stands = claim is not None and claim.decode().split("|")[1] == nonce
        law(stands and client.zscore(due, member) is not None, f"{member} renewed, but lost (E2)")

    def _intended(self, message: Message) -> None:
        keys = self._store.keys(message.saga_id)
        if self._store.was_set_back(keys.id):
            return  # the record may be lost
        client = self._store.client_of(keys.id)
        if client.hexists(keys.work, outbox_field(message.ref)):
            law(not message.plain, f"{message}: a plain task is sent without a claim (E13)")
            return
        claim = client.hget(keys.work, claim_field(message.kind, message.step))
        if claim is not None and claim.decode().startswith(f"{message.attempt}|"):
            return
        law(self._was_decided(keys, message), f"{message} is not on record (rule 1)")

    def _was_decided(self, keys: k.SagaKeys, message: Message) -> bool:
        """Whether a decision over the log has requested this message."""
        log = [decode(text) for text in self._store.look.execute(store.log(keys))]
        decided = int(self._store.client_of(keys.id).hget(keys.saga, "c") or 0)
        workflow = self._workflows[keys.id]
        wanted = Dispatch(*message.ref)
        saga = blank_of(self._store, workflow, keys.id, log[0].at_ms)
        for entry in log[:decided]:
            decision = decide(workflow, saga, entry, entry.at_ms)
            if wanted in decision.commands:
                return True
            saga = decision.saga
        return False


def blank_of(kept: Store, workflow: Workflow, saga_id: str, now_ms: int) -> Saga:
    """A saga of these histories before its first decision."""
    data = hash_of(kept.client_of(saga_id).hgetall(kept.keys(saga_id).data))
    return blank_saga(workflow, saga_id, now_ms, data)


def _stands(reply: Any) -> bool:
    """Whether a commit was written; the reply of a start is CREATED or a tuple of refusals."""
    return isinstance(reply, Committed | tuple) or reply == store.CREATED
