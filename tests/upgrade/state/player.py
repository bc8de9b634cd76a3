"""How does a test play the worker over a stored state?

One process runs the production engine over a real server, with a clock moved by hand. It reads the
messages in the broker's lists as a worker does, mark included.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.clock import Clock, FakeClock
from multiagents.core.effects import Flow
from multiagents.core.entries import Entry, Requested, Succeeded
from multiagents.core.names import HEADER
from multiagents.core.ports import Assignment
from multiagents.core.settings import Settings
from multiagents.core.states import Action, Kind
from multiagents.engine.catalog import Catalog
from multiagents.engine.messages import Message, Publish
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.hosting.app import make_app
from multiagents.hosting.assembly import Host
from multiagents.saga.outcome import SagaOutcome
from multiagents.saga.targets import TOLD
from multiagents.storage import formats
from multiagents.storage.calls import Call
from multiagents.storage.client import Edge
from multiagents.storage.commit import Letter
from multiagents.storage.keys import Shard
from multiagents.transport.direct_publish import Letters
from multiagents.transport.direct_result import Answers
from multiagents.worker_sdk.attempt import perform, verdict_of
from multiagents.worker_sdk.validation import check_input
from multiagents.workflows.workflow import Workflow
from tests.upgrade.state import work

LEASE_S = 2.0
YEARS_S = 3e8
QUEUE = "io"
SLOTS = 2
MOST_ROUNDS = 3000
SHARD = Shard(0)
FUNCTIONS = {each.name: each for each in work.WORKERS}
Seen = dict[str, Any]


class Interrupted(Exception):
    """The process has to die here."""


class Player:
    """One process; ``told`` records the outcomes it delivers."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.settings = Settings(redis_url=url, lease_s=LEASE_S, retention_s=YEARS_S)
        self.app = make_app(self.settings)
        self._letters = Letters(self.app, self.settings)
        self.sends = True
        self._dies_after = ""
        self.told: dict[str, list[Any]] = {}
        self.edge = _Mortal(url, self)
        self.catalog = Catalog(self.clock)
        for each in work.WORKERS:
            self.catalog.add_local(each.info)
        self.host = Host(
            self.edge,
            settings=self.settings,
            clock=self.clock,
            catalog=self.catalog,
            check_input=check_input,
            letter_of=self._letter_of,
            answer_of=Answers(self.app, self.settings),
        )
        self.engine = self.host.engine
        self.coordinator = self.host.coordinator

    def close(self) -> None:
        """Close the connections."""
        self.edge.close()
        self.app.close()

    def announce(self) -> None:
        """Announce a known worker."""
        self.edge.run(formats.note([SHARD]))
        self.edge.run(self.catalog.publish("w@host", [QUEUE], work.WORKFLOWS, slots=SLOTS))
        self.edge.run(self.catalog.refresh(force=True))

    # ---- effects ----

    def _letter_of(self, message: Message) -> Letter | None:
        return self._letters(message) if self.sends else None

    def perform(self, effect: Any) -> Any:
        """Carry out a flow's effects other than Redis."""
        match effect:
            case Publish():
                raise Interrupted
            case SagaOutcome():
                self.told[effect.saga_id] = [effect.state, effect.waiting]
                return TOLD
            case QueueHead():
                return Backlog(self.edge.client.llen(QUEUE))
        raise TypeError(effect)

    def run_until(self, script: str, act: Callable[[], Any]) -> None:
        """Run an action, and die once a script has run."""
        self._dies_after = script
        try:
            act()
        except Interrupted:
            self._dies_after = ""
        else:
            raise AssertionError(f"no {script} was run")

    def ran(self, effect: Any) -> None:
        """Die here if `run_until` waits for this script."""
        if isinstance(effect, Call) and effect.script == self._dies_after:
            raise Interrupted

    # ---- what a worker does ----

    def start(self, name: str, workflow: Workflow, given: dict[str, Any] | None = None) -> None:
        """Start a saga with this name for an id."""
        self.host.call("start", workflow, given or {"sku": name, "amount": 3}, task_id=name)

    def message(self, saga: str) -> Seen:
        """Take a saga's next message out of its queue."""
        for raw in reversed(self.edge.client.lrange(QUEUE, 0, -1)):
            found = _read(raw)
            if found["mark"][0] == saga:
                self.edge.client.lrem(QUEUE, -1, raw)
                return found
        raise AssertionError(f"no message for {saga}")

    def claim(self, saga: str) -> Assignment:
        """Claim the attempt of a saga's next message."""
        held = self._claim(self.message(saga))
        assert held is not None
        return held

    def _claim(self, message: Seen) -> Assignment | None:
        saga, kind, step, attempt, version, *_ = message["mark"]
        return self.engine.claim(
            saga,
            AttemptRef(Kind(kind), step, int(attempt)),
            delivery=message["id"],
            queue=QUEUE,
            version=version,
        )

    def run(self, saga: str, times: int = 1) -> None:
        """Run the attempts of a saga's next messages."""
        for _ in range(times):
            self._do(self.message(saga))

    def _do(self, message: Seen) -> None:
        if len(message["mark"]) > 6:
            self._do_plain(message)
            return
        held = self._claim(message)
        if held is not None:
            self.end(held)

    def end(self, held: Assignment) -> None:
        """Run the function of an attempt and report its result."""
        try:
            _, text = perform(FUNCTIONS[held.worker], held, _NoLeases(), limit=10_000)
        except Exception as error:  # noqa: BLE001 - as a worker does
            self.engine.fail(held, verdict_of(error, held.kind), go_on=False)
        else:
            self.engine.succeed(held, text, go_on=False)

    def _do_plain(self, message: Seen) -> None:
        saga, task_id = message["mark"][0], message["id"]
        attempts = self.engine.fence(saga, task_id)
        if attempts:
            result = json.dumps(work.plain(*message["args"], **message["kwargs"]))
            self.engine.plain_ended(saga, task_id, result, attempts=attempts)

    def append(self, saga: str, entry: Entry) -> None:
        """Append an entry and decide."""
        self.edge.run(self.coordinator.append(saga, entry))

    def ask(self, saga: str, command: str) -> None:
        """Request an operator's action."""
        self.append(saga, Requested(self.clock.now_ms(), Action(command), f"{command}-{saga}"))

    def report(self, saga: str, step: str, attempt: int, nonce: str) -> None:
        """Report a late success."""
        now_ms = self.clock.now_ms()
        entry = Succeeded(now_ms, Kind.RUN, step, attempt, nonce)
        self.edge.run(self.coordinator.report(saga, entry, result=json.dumps({"late": attempt})))

    def sweep(self, saga: str = "") -> None:
        """Handle the due items of a saga, or of all."""
        for item in self.edge.run(self.host.sweeper.due(SHARD)):
            if not saga or item.member.split("|")[1] == saga:
                self.edge.run(self.host.sweeper.handle(item))

    def pass_time(self, saga: str, seconds: float) -> None:
        """Let time pass for one saga, with sweeps."""
        assert isinstance(self.clock, FakeClock)
        for _ in range(round(seconds * 2)):
            self.clock.advance(0.5)
            self.sweep(saga)

    # ---- to the end ----

    def finish(self, acts: list[list[Any]]) -> None:
        """Do the later actions of operators and late workers, then all remaining work."""
        assert isinstance(self.clock, FakeClock)
        for saga, act, *rest in acts:
            (self.ask if act == "ask" else self.report)(saga, *rest)
        for _ in range(MOST_ROUNDS):
            raw = self.edge.client.rpop(QUEUE)
            if raw is not None:
                self._do(_read(raw))
                continue
            due_ms = self._next_due_ms()
            if due_ms is None:
                return
            self.clock.advance(max(0.0, (due_ms - self.clock.now_ms() + 1) / 1000))
            self.sweep()
        raise AssertionError("does not come to rest")

    def _next_due_ms(self) -> float | None:
        pairs = self.edge.client.zrange(SHARD.due, 0, -1, withscores=True)
        times = [score for member, score in pairs if not member.startswith(b"x|")]
        return min(times, default=None)

    def present(self, saga: str) -> Seen:
        """A saga's state and history, with all times."""
        about = self.host.call("get", saga)
        steps = {
            name: [step["started_at"], step["ended_at"], step["progress"]]
            for name, step in about["steps"].items()
        }
        times = [about["created_at"], about["updated_at"], steps]
        events = [row["at"] for row in self.host.call("history", saga)]
        return {**self.outcome(saga), "told": None, "times": times, "events": events}

    def outcome(self, saga: str) -> Seen:
        """A saga's state and history, without times."""
        about = self.host.call("get", saga)
        events = self.host.call("history", saga)
        kept = ("state", "workflow", "input", "step_results", "result", "error", "attention")
        return {
            **{name: _placeless(about[name]) for name in kept},
            "steps": {
                name: {**_work(step), "compensation": undo and _work(undo)}
                for name, step in about["steps"].items()
                for undo in [step["compensation"]]
            },
            "history": [[row["type"], row["step"], row["attempt"]] for row in events],
            "told": self.told.get(saga),
        }


def _work(shown: dict[str, Any]) -> Seen:
    return {key: _placeless(shown[key]) for key in ("state", "attempts", "error")}


def _placeless(value: Any) -> Any:
    """An error without its place in these files, which earlier versions did not store."""
    if isinstance(value, dict) and "message" in value:
        return {key: value[key] for key in value if key != "place"}
    return value


class _NoLeases:
    def note(self, held: Assignment, field: str, value: Any) -> bool:
        return True


class _Mortal(Edge):
    """The edge of a process that may have to die."""

    def __init__(self, url: str, player: Player) -> None:
        super().__init__(url, perform=player.perform, shards=(0,))
        self._player = player

    def execute(self, effect: Any) -> Any:
        reply = super().execute(effect)
        self._player.ran(effect)
        return reply

    def run(self, flow: Flow[Any]) -> Any:
        """As in production, but a death is not thrown into the flow."""
        reply: Any = None
        while True:
            try:
                effect = flow.send(reply)
            except StopIteration as stop:
                return stop.value
            reply = self.execute(effect)


def _read(raw: bytes) -> Seen:
    """A message, as a worker reads it."""
    message = json.loads(raw)
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    headers = message["headers"]
    return {"id": headers["id"], "mark": headers[HEADER], "args": args, "kwargs": kwargs}
