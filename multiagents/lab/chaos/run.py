"""Which phases does a chaos run have, from its first worker to its report?

Start all processes; inject faults while orders come in; let running sagas end; stop the workers in
order; only then read the evidence.  No process or file remains, however the run ends, except the
ledger, the logs and the server's data with `ChaosPlan.keep`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiagents.cli.errors import CommandError
from multiagents.cli.session import Session, close_sessions, connect, environment
from multiagents.cli.worker_process import READY_S, isolate
from multiagents.core.entries import Entry, decode
from multiagents.core.exceptions import UnknownSaga
from multiagents.core.names import DEFAULT_QUEUES
from multiagents.core.polling import until
from multiagents.core.settings import get_settings
from multiagents.core.states import ENDED, SagaState
from multiagents.devserver.server import EmbeddedServer
from multiagents.lab.chaos import audit
from multiagents.lab.chaos.crew import Crew
from multiagents.lab.chaos.feeder import Feeder
from multiagents.lab.chaos.injector import Injector
from multiagents.lab.chaos.ledger import LEDGER_VARIABLE, Ledger
from multiagents.lab.chaos.orders import opening
from multiagents.lab.chaos.plan import ChaosPlan
from multiagents.lab.chaos.recovery import recoveries
from multiagents.lab.chaos.report import ChaosReport
from multiagents.storage import sagas as store
from multiagents.storage.client import Edge
from multiagents.storage.keys import Shard

Say = Callable[[str], None]
SHOP = "multiagents.lab.chaos.shop"
POLL_S = 0.1
STILL_S = 2.0
"""The workers stop after this long without work; no step takes longer."""
SOON_MS = 60_000
"""Items due later than this are not pending work: they are the ends of retentions."""
RETENTION_S = 7 * 86_400
OPEN = tuple(state for state in SagaState if state not in ENDED)
FEW = 200
"""At most this many sagas are read one by one, to see whether they are parked."""


def run(plan: ChaosPlan, say: Say) -> ChaosReport:
    """Run the plan, and return the report.  Raises CommandError if the workers do not start."""
    with _scene(plan) as scene:
        _wait_ready(scene, say)
        began = time.monotonic()
        with Feeder(plan, scene.session) as feeder:
            injector = Injector(
                plan,
                crew=scene.crew,
                server=scene.server,
                session=scene.session,
                client=scene.edge.client,
                tell=lambda: _tell(scene, feeder, injector, say, began),
            )
            injector.run(lambda: feeder.done, until_s=plan.seconds + plan.settle_s)
        _tell(scene, feeder, injector, say, began)
        say("no more faults: running sagas may end")
        _settle(scene, injector)
        seconds = time.monotonic() - began
        scene.crew.stop()
        say("checking the ledger and every saga")
        return _report(scene, feeder, injector, seconds)


@dataclass(frozen=True, slots=True)
class Scene:
    """The processes and connections of a run."""

    plan: ChaosPlan
    server: EmbeddedServer
    session: Session
    edge: Edge
    ledger: Ledger
    crew: Crew

    @property
    def shards(self) -> list[Shard]:
        """All shards."""
        return [Shard(number) for number in range(self.session.runtime.settings.shards)]

    def count(self, states: Iterable[SagaState]) -> int:
        """How many sagas are in one of these states."""
        keys = [shard.state(state) for shard in self.shards for state in states]
        return sum(int(self.edge.client.zcard(key)) for key in keys)

    def open_ids(self) -> list[str]:
        """The sagas that have not ended."""
        keys = [shard.state(state) for shard in self.shards for state in OPEN]
        return [saga_id for key in keys for saga_id in self._ids(key)]

    def _ids(self, key: str) -> list[str]:
        found: list[str] = self.edge.execute(store.ids(key, offset=0, limit=FEW))
        return found

    def work_left(self) -> int:
        """The number of due items and queued messages that the engine still has to handle."""
        soon_ms = self.session.now_ms + SOON_MS
        due = sum(int(self.edge.client.zcount(shard.due, "-inf", soon_ms)) for shard in self.shards)
        return due + sum(int(self.edge.client.llen(queue)) for queue in DEFAULT_QUEUES)


@contextmanager
def _scene(plan: ChaosPlan) -> Iterator[Scene]:
    with ExitStack() as stack:
        folder = _folder(stack, plan)
        ledger = Ledger(folder / "ledger.sqlite")
        ledger.open(**opening(plan.sagas))
        ledger.share()
        server = stack.enter_context(EmbeddedServer(folder / "server", appendfsync="always"))
        stack.callback(get_settings.cache_clear)
        isolate(stack, server.url)
        os.environ.update(
            MULTIAGENTS_LEASE_S=str(plan.lease_s), MULTIAGENTS_RETENTION_S=str(RETENTION_S)
        )
        stack.callback(close_sessions)
        session = connect(environment())
        edge = Edge(server.url)
        stack.callback(edge.close)
        env = {
            "MULTIAGENTS_IMPORTS": SHOP,
            LEDGER_VARIABLE: str(folder / "ledger.sqlite"),
            "TMPDIR": str(folder),  # a killed process leaves its temporary files
        }
        crew = stack.enter_context(Crew(plan, folder, env))
        crew.start()
        yield Scene(plan, server, session, edge, ledger, crew)


def _folder(stack: ExitStack, plan: ChaosPlan) -> Path:
    if plan.keep is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="multiagents-chaos-")))
    plan.keep.mkdir(parents=True, exist_ok=True)
    if any(plan.keep.iterdir()):
        raise CommandError(f"--keep {plan.keep} is not empty; name an empty or a new folder")
    return plan.keep.resolve()


def _wait_ready(scene: Scene, say: Say) -> None:
    plan = scene.plan
    say(
        f"{plan.workers} workers start; {plan.sagas} sagas in {plan.seconds:g} s, lease"
        f" {plan.lease_s:g} s, seed {plan.seed}"
    )

    def are_ready() -> bool:
        scene.crew.note_ready(scene.session.fleet())
        if scene.crew.all_ready:
            return True
        if ended := next((each for each in scene.crew.members if each.has_ended), None):
            raise ended.worker.ended()
        return False

    if not until(are_ready, READY_S, poll_s=POLL_S):
        tail = scene.crew.members[0].worker.tail()
        raise CommandError(f"a worker was not ready within {READY_S:g} s{tail}")


def _tell(scene: Scene, feeder: Feeder, injector: Injector, say: Say, began: float) -> None:
    asked = sum(scene.plan.asked.values())
    say(
        f"{time.monotonic() - began:5.0f} s: {len(feeder.started)} of {scene.plan.sagas} sagas"
        f" started, {len(injector.faults)} of {asked} faults done"
    )


def _settle(scene: Scene, injector: Injector) -> None:
    """Return when all sagas are at rest, or after `ChaosPlan.settle_s`; the audit sees which."""
    ends_at = time.monotonic() + scene.plan.settle_s
    still_since = None
    while (now := time.monotonic()) < ends_at:
        injector.watch()
        if scene.work_left() or _moving(scene):
            still_since = None
        elif still_since is None:
            still_since = now
        elif now - still_since >= STILL_S:
            return
        time.sleep(POLL_S)


def _moving(scene: Scene) -> bool:
    """Whether a saga has neither ended nor parked."""
    count = scene.count(OPEN)
    if not 0 < count <= FEW:
        return bool(count)
    return any(
        saga is not None and not audit.is_parked(saga)
        for saga in (_get(scene, saga_id) for saga_id in scene.open_ids())
    )


def _get(scene: Scene, saga_id: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = scene.session.call("get", saga_id)
    except UnknownSaga:
        return None
    return found


# ---- the evidence ----


def _report(scene: Scene, feeder: Feeder, injector: Injector, seconds: float) -> ChaosReport:
    evidence = _evidence(scene, feeder)
    known = [saga_id for saga_id, saga in evidence.sagas.items() if saga is not None]
    recovered = recoveries(injector.faults, (_log(scene, saga_id) for saga_id in known))
    return ChaosReport(
        plan=scene.plan,
        started=len(feeder.started),
        repeated_starts=feeder.retried,
        states=Counter(audit.outcome(saga) for _, _, saga in evidence.found()),
        undone_by_faults=audit.undone_by_faults(evidence),
        injected=injector.faults,
        recovery=recovered.summary(),
        unexplained_losses=recovered.unexplained,
        absorbed=audit.absorbed(evidence),
        ended_by_themselves=scene.crew.ended_by_themselves,
        seconds=seconds,
        found=audit.violations(evidence),
    )


def _evidence(scene: Scene, feeder: Feeder) -> audit.Evidence:
    backend = scene.session.runtime.app.backend
    return audit.Evidence(
        orders=feeder.started,
        sagas={saga_id: _get(scene, saga_id) for saga_id in feeder.started},
        results={saga_id: backend.get_task_meta(saga_id)["status"] for saga_id in feeder.started},
        known=sum(int(scene.edge.client.zcard(shard.sagas)) for shard in scene.shards),
        books=scene.ledger.books(),
        opening=opening(scene.plan.sagas),
    )


def _log(scene: Scene, saga_id: str) -> list[Entry]:
    keys = scene.session.runtime.host.coordinator.repository.keys(saga_id)
    return [decode(text) for text in scene.session.runtime.edge.execute(store.log(keys))]
