"""How does an asyncio program start and follow sagas?

    orchestrator = Orchestrator(workflow, event_bus)
    await orchestrator.start()
    transaction_id = await orchestrator.execute_workflow("order", {"sku": "A1"})
    status = await orchestrator.get_status(transaction_id)

A face of `SagaService`, like `multiagents.sagas`: the same operations, run on the program's own
event loop.  It publishes only the first messages of a saga; workers run the steps, here
(`WorkerManager`) or in any other process on the same Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Self

from multiagents.core.exceptions import InvalidInput
from multiagents.core.settings import check_named
from multiagents.event_bus.bus import EventBus
from multiagents.event_bus.narrator import Narrator
from multiagents.hosting.runtime import Runtime, runtime_at
from multiagents.operations.operation import OPERATIONS
from multiagents.operations.service import SagaService
from multiagents.storage.client import UNREACHABLE, AsyncEdge
from multiagents.storage.routing import open_async_edge
from multiagents.workflows import registry
from multiagents.workflows.workflow import Workflow


class Orchestrator:
    """Starts sagas of a workflow, and reads and steers sagas of any workflow.

    All `OPERATIONS`, such as ``list``, ``history``, ``pause``, ``resume`` and ``cancel``, are
    coroutine methods with the arguments of `SagaService`'s.  The constructor makes the workflow
    startable by name and does not connect.

    ``state_store`` is the URL of the Redis that keeps the sagas.  None means the bus's Redis, and
    if the bus has none, that of the settings.  Workers must serve the same Redis.

    A started orchestrator works from any event loop.  So an ``async def`` worker of the same
    program, whose loop runs in another thread, may use it.  Such a call neither waits for the loop
    of `start` nor blocks it: it runs in a thread, on that thread's connection (`Runtime.call`).
    """

    def __init__(
        self,
        workflow: Workflow,
        event_bus: EventBus | None = None,
        state_store: str | None = None,
        *,
        home: Runtime | None = None,
    ) -> None:
        """``home``: the engine of an attached app; `attach` sets it."""
        _check_state_store(state_store)
        self.workflow = registry.register(workflow, replace=True)
        self.event_bus = event_bus
        self._url = state_store or getattr(event_bus, "redis_url", None)
        self._given = home
        self._home: Runtime | None = None
        self._edge: AsyncEdge | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop of `start`, which owns the connections of the edge and the narrator."""
        self._narrator: Narrator | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect; a second call does nothing.  Raises NoServer if no Redis answers."""
        if self._home is not None:
            return
        home = self._given or runtime_at(self._url)
        if not home.app.conf.task_always_eager:
            await asyncio.to_thread(home.prepare)
            self._loop = asyncio.get_running_loop()
            self._edge = open_async_edge(home.settings, perform=home.courier)
            if self.event_bus is not None:
                self._narrator = home.narrator(self.event_bus)
                await self._narrator.open()
        self._home = home

    async def stop(self) -> None:
        """Close the connections; a second call does nothing.  Sagas continue."""
        edge, narrator, loop = self._edge, self._narrator, self._loop
        self._home = self._edge = self._narrator = self._loop = None
        if loop is asyncio.get_running_loop():
            await _close(narrator, edge)
        elif loop is not None and loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(_close(narrator, edge), loop)
            await asyncio.wrap_future(closing)

    async def execute_workflow(
        self,
        name: str | Workflow,
        input: dict[str, Any] | None = None,  # noqa: A002 - the public name of the argument
        *,
        idempotency_key: str | None = None,
        correlation_id: str | None = None,
        tags: Sequence[str] = (),
        on_conflict: Literal["refuse", "first"] = "refuse",
    ) -> str:
        """Start a saga and return its transaction id; the saga is then durable.

        With an ``idempotency_key``, only the first start of a workflow creates a saga, and later
        starts return its id.  A later start with another input raises IdempotencyConflict, or with
        ``on_conflict="first"`` returns the first saga too.  UnknownWorkflow, UnknownWorker and
        InvalidInput are raised before anything is stored.
        """
        workflow = self.workflow if name == self.workflow.name else name
        saga_id: str = await self._call(
            "start",
            workflow,
            input,
            idempotency_key=idempotency_key,
            correlation_id=correlation_id,
            tags=tags,
            on_conflict=on_conflict,
        )
        return saga_id

    async def get_status(self, transaction_id: str) -> dict[str, Any]:
        """The saga as it is now, as `SagaService.get` describes it.  Raises UnknownSaga."""
        status: dict[str, Any] = await self._call("get", transaction_id)
        return status

    async def _call(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        home, edge = self._home, self._edge
        if home is None:
            raise InvalidInput(
                f"cannot {operation}: the orchestrator is not started;"
                " await orchestrator.start() first"
            )
        if edge is None or self._loop is not asyncio.get_running_loop():
            # In eager mode the whole saga runs before this returns.
            return await asyncio.to_thread(home.call, operation, *args, **kwargs)
        flow = getattr(home.host.service, operation)(*args, **kwargs)
        began = time.monotonic()
        try:
            return await edge.run(flow)
        except UNREACHABLE as error:
            raise home.no_server(error, time.monotonic() - began) from None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name not in OPERATIONS:
            known = ", ".join(dir(self))
            raise AttributeError(f"Orchestrator has no {name!r}; there are: {known}")

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, *args, **kwargs)

        call.__name__, call.__doc__ = name, getattr(SagaService, name).__doc__
        return call

    def __dir__(self) -> list[str]:
        own = [name for name in super().__dir__() if not name.startswith("_")]
        return sorted({*own, *OPERATIONS})


async def _close(narrator: Narrator | None, edge: AsyncEdge | None) -> None:
    if narrator is not None:
        await narrator.close()
    if edge is not None:
        await edge.close()


def _check_state_store(given: object) -> None:
    """Raise InvalidInput unless it is the URL of a server, or None."""
    if given is None:
        return
    if not isinstance(given, str):
        kind = type(given)
        raise InvalidInput(
            f"state_store is an object of {kind.__module__}.{kind.__qualname__}: expected the URL"
            " of the Redis that keeps the sagas, as text, such as 'redis://127.0.0.1:6379/0', or"
            " None for the event bus's. The engine itself stores the sagas: a custom store cannot"
            " replace it"
        )
    check_named("state_store", given)
