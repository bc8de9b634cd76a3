"""How are the rooms put together?  The only wiring.

`attach` gives a Celery app the engine's tasks, a task for every worker function, and the sweeper.
`app` is the package's own app, attached.  An import of this module connects to nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import structlog
from billiard import current_process
from celery import Celery, signals

from multiagents.core.clock import Clock, SystemClock
from multiagents.core.exceptions import InvalidInput, NoServer, StepTimeout
from multiagents.core.logs import tame
from multiagents.core.names import COORDINATOR_QUEUE
from multiagents.core.ports import Assignment
from multiagents.core.settings import Settings, get_settings
from multiagents.engine.attempts import StoreEngine
from multiagents.engine.catalog import Catalog
from multiagents.event_bus.bus import EventBus
from multiagents.event_bus.narrator import Narrator
from multiagents.hosting import app_home, bootstep, fence, published, registration, revocation
from multiagents.hosting.app import OWN_NAME, errors_in_one_line, make_app
from multiagents.hosting.assembly import Host
from multiagents.hosting.eager import EagerRunner
from multiagents.hosting.failures import Failures
from multiagents.hosting.plain_reports import PlainEnds
from multiagents.hosting.report_retry import persist
from multiagents.hosting.saga_tasks import Courier, install
from multiagents.hosting.step_task import TaskProcess
from multiagents.hosting.stop_flag import StopFlag
from multiagents.hosting.sweeper_thread import AtWork, Queues, Refuse, Slots, SweeperThreads
from multiagents.operations.sync_face import Sagas as Sagas
from multiagents.storage.client import MAIN_TIMEOUT_S, UNREACHABLE, Edge
from multiagents.storage.clock_sync import Timekeeper
from multiagents.storage.routing import no_server, open_edge, told
from multiagents.transport import app_broker, app_settings
from multiagents.transport.async_result import Outcomes
from multiagents.transport.direct_publish import Letters
from multiagents.transport.direct_result import Answers
from multiagents.transport.redelivery import Insistence
from multiagents.worker_sdk import async_attempts, breaker, loop_watch
from multiagents.worker_sdk import registry as workers
from multiagents.worker_sdk.attempt import perform, verdict_of
from multiagents.worker_sdk.leases import LeaseKeeper
from multiagents.worker_sdk.registry import Worker
from multiagents.worker_sdk.validation import check_input
from multiagents.workflows import registry
from multiagents.workflows.registry import register as register
from multiagents.workflows.user_code import register_files
from multiagents.workflows.workflow import Workflow

if TYPE_CHECKING:
    from multiagents.orchestrator.orchestrator import Orchestrator

log = structlog.get_logger(__name__)


def _can_be_ended() -> bool:
    """Whether this process is a child of a pool, which replaces it when it ends."""
    return bool(current_process().name != "MainProcess")


class Runtime:
    """The engine as one Celery app hosts it."""

    def __init__(self, app: Celery, settings: Settings, clock: Clock | None = None) -> None:
        tame()
        self.app = app
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.timekeeper = Timekeeper(self.clock)
        self.courier = Courier(app)
        self.edge = open_edge(settings, perform=self.courier)
        self._main_edge = self._edge_of_main()
        self.catalog = Catalog(self.clock, route_of=partial(published.queue_of, app))
        modules = settings.import_names if app.main == OWN_NAME else ()
        self.host = self._make_host(modules)
        self.eager = self._make_eager(modules)
        self.outcomes = self._make_outcomes()
        self.stopping = StopFlag()
        self.persist: Callable[..., Any] = partial(
            persist, edge=self.edge, is_needed=self._is_needed
        )
        self.plain_ends = PlainEnds(self.host.engine, self.persist, settings.max_result_bytes)
        self.failures = self._make_failures()
        self.insistence = Insistence(app, self.stopping.is_set, self.catalog)
        self.start_saga = install(app, self)
        self.sagas = Sagas(self)
        self.most_steps: int | None = None
        self._processes: dict[int, TaskProcess] = {}
        self._narrators: WeakValueDictionary[int, Narrator] = WeakValueDictionary()
        workers.on_register(self.add_worker, check=partial(registration.check, app))
        register_files(settings)

    def _make_host(self, modules: Sequence[str]) -> Host:
        return Host(
            self.edge,
            settings=self.settings,
            clock=self.clock,
            catalog=self.catalog,
            check_input=check_input,
            letter_of=Letters(self.app, self.settings),
            answer_of=Answers(self.app, self.settings),
            modules=modules,
        )

    def _make_eager(self, modules: Sequence[str]) -> EagerRunner:
        task_of = partial(registration.task_of, self.app, process_of=self.process)
        return EagerRunner(
            self.app, self.settings, self.catalog, check_input, task_of=task_of, modules=modules
        )

    def _make_outcomes(self) -> Outcomes:
        service = self.host.service
        return Outcomes(
            self.app,
            is_known=lambda saga_id: self.edge.run(service.is_known(saga_id)),
            told=lambda error: told(self.edge, error),
            person_awaited=lambda saga_id: self.edge.run(service.person_awaited(saga_id)),
            stranded=lambda saga_id: self._main_edge.run(service.stranded(saga_id)),
        )

    def _make_failures(self) -> Failures:
        return Failures(
            self.app,
            process_of=self.process,
            plain_ends=self.plain_ends,
            main_engine=self.main_engine,
            persist=self.persist,
        )

    def call(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Run an operation on sagas; in eager mode, with all that follows from it.

        Raises NoServer if Redis does not answer.
        """
        if self.app.conf.task_always_eager:
            return self.eager.call(operation, *args, **kwargs)
        began = time.monotonic()
        try:
            self.timekeeper.keep(self.edge)
            return self.host.call(operation, *args, **kwargs)
        except UNREACHABLE as error:
            raise self.no_server(error, time.monotonic() - began) from None

    def no_server(self, error: Exception, tried_s: float) -> NoServer:
        """The error with the server that is away, the reason, and the time spent on retries."""
        hint = app_home.advice(self.app, self.settings)
        return no_server(self.settings.home, error, tried_s, hint=hint)

    # ---- workers ----

    def add_worker(self, worker: Worker) -> None:
        """Make a Celery task of a worker function, under its own name."""
        registration.register_worker(self.app, worker, self.process)
        self.catalog.add_local(registration.info_of(self.app, worker))

    def process(self) -> TaskProcess:
        """What the tasks of this process share; a forked child makes its own."""
        found = self._processes.get(pid := os.getpid())
        if found is None:
            # Threads that call at once each make one, but all must take the same: with a keeper of
            # leases each, some leases would never be released.
            found = self._processes.setdefault(pid, self._make_process())
        return found

    def _make_process(self) -> TaskProcess:
        settings = self.settings
        leases = LeaseKeeper(
            self.host.engine,
            clock=self.clock,
            lease_ms=settings.lease_ms,
            cancel=async_attempts.cancel,
            keeps_time=async_attempts.keeps_time,
            on_timeout=self._on_timeout,
            can_kill=_can_be_ended(),
            keep_time=lambda only: self.timekeeper.keep(self._main_edge, only_if_set=only),
            soon=self.main_engine().renew,
            persist=self.persist,
        )
        self.timekeeper.keep(self.edge)
        loop_watch.watch.report_to(
            lambda report: self.main_engine().report_loop(report), ends_process=_can_be_ended()
        )
        return TaskProcess(
            engine=self.host.engine,
            leases=leases,
            perform=partial(perform, limit=settings.max_result_bytes),
            verdict_of=verdict_of,
            persist=self.persist,
            slice_s=settings.slice_s,
            slice_steps=settings.slice_steps,
            stopping=self.stopping.is_set,
            most_steps=self.most_steps,
            left_by=async_attempts.taken,
            can_be_ended=_can_be_ended(),
            goes_alone=self.catalog.alone,
        )

    def _is_needed(self) -> bool:
        """Whether other servers' sagas need this process, or it is stopping."""
        return bool(self.settings.state_urls) or self.stopping.is_set()

    def _on_timeout(self, held: Assignment, place: str) -> None:
        error = StepTimeout.of(held.worker, held.timeout_s).standing_at(place)
        verdict = verdict_of(error, held.kind)
        verdict = replace(verdict, running=not _can_be_ended())
        self.main_engine().fail(held, verdict, go_on=False)

    # ---- for the facade: work in a program's own process ----

    def prepare(self) -> None:
        """Prepare the runtime for use in this process.  Raises NoServer."""
        began = time.monotonic()
        try:
            self.timekeeper.keep(self.edge)
        except UNREACHABLE as error:
            raise self.no_server(error, time.monotonic() - began) from None
        breaker.connect(self.edge.execute, self.clock)

    def queues_for(self, chosen: Iterable[Worker]) -> set[str]:
        """The queues of these workers' steps, and the engine's own."""
        homes = {worker.name: self.catalog.queue_of(worker.name) for worker in chosen}
        named = {
            step.queue
            for workflow in registry.registered().values()
            for step in workflow.steps
            if step.queue and {step.worker, step.compensation} & homes.keys()
        }
        return {COORDINATOR_QUEUE, *homes.values(), *named}

    def leave(self, hostname: str) -> None:
        """Withdraw a worker; if the store is away, its missing heartbeat shows its end."""
        try:
            self.edge.run(self.catalog.withdraw(hostname))
        except UNREACHABLE as error:
            log.warning("cannot withdraw a worker", worker=hostname, error=type(error).__name__)

    def narrator(self, bus: EventBus) -> Narrator:
        """The narrator of that bus, which all callers share."""
        known = self._narrators.get(id(bus))  # a living narrator keeps its bus, so the id is valid
        if known is None:
            known = self._narrators[id(bus)] = Narrator(
                bus,
                look=lambda saga_id: self.call("get", saga_id),
                observers=self.host.coordinator.observers,
            )
        return known

    def orchestrator(self, workflow: Workflow, event_bus: EventBus | None = None) -> Orchestrator:
        """The asyncio face for this app's sagas."""
        from multiagents.orchestrator.orchestrator import (
            Orchestrator,  # it stands above this room
        )

        return Orchestrator(workflow, event_bus, home=self)

    # ---- for a worker's main process ----

    def main_engine(self) -> StoreEngine:
        """The engine for reports of a main process or a keeper of leases; it gives up soon."""
        return StoreEngine(self.host.coordinator, self._main_edge, self.clock, self.catalog)

    def _edge_of_main(self) -> Edge:
        """The edge of a worker's main process: it gives up soon and never retries (E20)."""
        hasty = Courier(self.app, hasty=True)
        return open_edge(self.settings, perform=hasty, timeout_s=MAIN_TIMEOUT_S, retries=0)

    # ---- the sweeper ----

    def sweeper_threads(
        self, hostname: str, queues: Queues, slots: Slots, *, at_work: AtWork, refuse: Refuse
    ) -> SweeperThreads:
        """The threads for a worker's main process; their connections are their own."""
        edge = self._edge_of_main()
        about, stops = published.about(self.app), self.stopping.is_set
        return SweeperThreads(
            self.host.sweeper,
            edge,
            settings=self.settings,
            clock=self.clock,
            announce=lambda: self.host.announce(
                hostname, queues(), slots=slots(), at_work=at_work(), stops=stops(), **about
            ),
            retire=lambda: self.catalog.retire(hostname),
            peers=lambda: self.catalog.peers,
            hand_backs=self.host.hand_back,
            queues=queues,
            stopping=self.stopping.is_set,
            refuse=refuse,
        )


_runtimes: dict[int, Runtime] = {}


def attach(
    app: Celery,
    settings: Settings | None = None,
    clock: Clock | None = None,
    *,
    url: str | None = None,
) -> Runtime:
    """Let a Celery app host sagas beside its own tasks; its settings stay unchanged.

    ``url``: the Redis for its sagas.  Without it they are on the server that MULTIAGENTS_REDIS_URL
    names, or else on the app's own Redis: its broker, or its result backend.  The workers of a
    Django project import ``sagas.py`` of each of its apps, like ``tasks.py``.  A second call gives
    the same runtime.  Raises InvalidInput for an app that cannot host sagas, or that is already
    attached with another ``url``.
    """
    if id(app) not in _runtimes:
        app_settings.refuse(app)
        own = app.main == OWN_NAME
        settings = app_home.settings_for(app, settings or get_settings(), url, own=own)
        runtime = Runtime(app, settings, clock)
        _runtimes[id(app)] = runtime
        app_broker.equip(app)
        registration.guard_names(app)
        bootstep.add_to_worker(app, runtime, own=own)
        fence.fence_plain_tasks(app, runtime)
        revocation.listen(app, runtime.main_engine)
        breaker.connect(runtime.edge.execute, runtime.clock, replaces=not own)
        if not own:
            app.autodiscover_tasks(related_name="sagas")
    elif url is not None and url != _runtimes[id(app)].settings.home.url:
        raise InvalidInput(
            f"app {app.main!r} is attached already, with its sagas at"
            f" {_runtimes[id(app)].settings.home}; give attach() the url where it is called first"
        )
    return _runtimes[id(app)]


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]  # celery has no types
def _consume_all_queues(instance: Any = None, options: Any = None, **_: Any) -> None:
    """Without ``-Q``, make a worker consume every queue of its worker functions."""
    if id(getattr(instance, "app", None)) in _runtimes and not (options or {}).get("queues"):
        app_broker.consume_all(instance.app, registration.homes(instance.app))


def runtime_at(redis_url: str | None) -> Runtime:
    """The runtime of that server (None: the package's own); a process has one for each."""
    if redis_url is None or redis_url == runtime.settings.home.url:
        return runtime
    with _at_lock:
        if redis_url not in _at:
            settings = runtime.settings.at(redis_url)
            _at[redis_url] = attach(make_app(settings), settings)
        return _at[redis_url]


_at: dict[str, Runtime] = {}
_at_lock = threading.Lock()


with errors_in_one_line():
    app = make_app(get_settings())
    runtime = attach(app)
start_saga = runtime.start_saga
sagas = runtime.sagas
