"""Which parts together move the sagas of one store?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from multiagents.core.clock import Clock
from multiagents.core.settings import Settings
from multiagents.engine.attempts import StoreEngine
from multiagents.engine.catalog import Catalog
from multiagents.engine.composition import compose
from multiagents.engine.handback import HandBack
from multiagents.engine.launches import launch_of
from multiagents.engine.messages import AnswerOf, LetterOf, no_answer, no_letter
from multiagents.engine.sweeper import Sweeper
from multiagents.hosting import attached, start_log
from multiagents.operations.service import SagaService
from multiagents.operations.starter import CheckInput, StartRules
from multiagents.storage.client import Edge
from multiagents.workflows import registry
from multiagents.workflows.workflow import Workflow

JUDGED_AT = (2, 5)
"""The announcements (one in ten seconds) that check for queues and functions which no worker has.
Workers that are started together are known by the first, and killed ones are gone by the last."""


class Host:
    """One store, one clock, and the parts that work over them."""

    def __init__(
        self,
        edge: Edge,
        *,
        settings: Settings,
        clock: Clock,
        catalog: Catalog,
        check_input: CheckInput,
        letter_of: LetterOf = no_letter,
        answer_of: AnswerOf = no_answer,
        modules: Sequence[str] = (),
        in_process: bool = False,
    ) -> None:
        self.edge = edge
        self.settings = settings
        self.clock = clock
        self.catalog = catalog
        self.coordinator = compose(
            settings=settings,
            clock=clock,
            directory=catalog,
            letter_of=letter_of,
            answer_of=answer_of,
        )
        self._announced = 0
        self._unconsumed: set[str] = set()
        self._lacking: set[str] = set()
        self.engine = StoreEngine(self.coordinator, edge, clock, catalog)
        self.sweeper = Sweeper(
            self.coordinator,
            has_no_worker=catalog.has_no_worker,
            clock_ms=clock.now_ms,
            refresh=catalog.refresh,
        )
        self.service = SagaService(
            self.coordinator,
            settings=settings,
            clock=clock,
            catalog=catalog,
            start_rules=StartRules(
                check_input=check_input,
                modules=modules,
                in_process=in_process,
                forgotten_advice=attached.forgotten_advice,
            ),
        )

    async def announce(
        self,
        hostname: str,
        queues: list[str],
        *,
        slots: int,
        app: str,
        broker: str,
        at_work: int | None = None,
        stops: bool = False,
        tasks: tuple[str, ...] | None = None,
        routes: Mapping[str, str] | None = None,
    ) -> None:
        """Publish the functions of this process's worker, and read those of the others.

        ``at_work``: how many tasks it runs; ``stops``: it takes no more.  ``app``: the name of its
        Celery app, for a command line that does not name it.  ``broker``: the kind of its broker.
        ``tasks``: the names of its app's own tasks.  ``routes``: the queues of some of them.
        """
        known = registry.registered().values()
        launch = launch_of(
            app,
            imports=self.settings.import_names,
            queues=queues,
            functions=self.catalog.local_names,
            tasks=tasks,
            routes=routes,
        )
        await self.catalog.publish(
            hostname,
            queues,
            known,
            slots=slots,
            launch=launch,
            broker=broker,
            at_work=(at_work or 0) if stops else None,
            routes=routes,
            busy=at_work,
        )
        await self.catalog.keep_up()
        self._announced += 1
        if self._announced in JUDGED_AT and self.catalog.has_signs_of_life and not stops:
            self._judge(known, queues)

    def _judge(self, known: Collection[Workflow], queues: Collection[str]) -> None:
        """Warn once of queues and functions that no running worker has."""
        there = self.catalog.takers.values()
        consumed = {*queues, *(queue for each in there for queue in each["queues"])}
        needed = start_log.queues_of(known, self.catalog.queue_of, self.catalog.route_of)
        own = self.catalog.local_names
        functions = {*own, *(name for each in there for name in each["workers"])}
        lacking = start_log.lacking(known, functions, own=own)
        start_log.warn_of_queues(needed - consumed - self._unconsumed, queues)
        start_log.warn_of_functions(lacking - self._lacking)
        self._unconsumed |= needed - consumed
        self._lacking |= lacking

    def hand_back(self) -> HandBack:
        """Gives back the steps whose functions this worker lacks; for one thread."""
        return HandBack(self.settings, self.clock, self.catalog)

    def call(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Run one of `OPERATIONS`."""
        return self.edge.run(getattr(self.service, operation)(*args, **kwargs))
