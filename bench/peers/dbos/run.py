"""How fast is DBOS on SQLite?

DBOS runs in one process, as usual with SQLite.  Chains are called one after the other, which was
faster than a start in the background.  A fan-out needs an async workflow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from bench.harness import INPUT, OUTPUT, Begin, Guarantees, Options, Variant, Wait, main

PRAGMAS = ("busy_timeout=30000", "foreign_keys=ON", "journal_mode=WAL", "synchronous=NORMAL")
"""DBOS itself sets the first two."""


@contextmanager
def arena(options: Options, *, wal: bool = False) -> Iterator[Mapping[str, Begin]]:
    """A launched DBOS in this process."""
    from dbos import DBOS

    url = f"sqlite:///{options.data / 'dbos.sqlite'}"
    config: dict[str, Any] = {"name": "bench", "log_level": "ERROR", "system_database_url": url}
    if wal:
        config["system_database_engine"] = _engine(url)
    DBOS(config=config)
    chain, fan = _workflows()
    DBOS.launch()
    try:
        yield {
            "chain10": partial(_call, chain, 10),
            "chain100": partial(_call, chain, 100),
            "fanout10": lambda: DBOS.start_workflow(fan, 10).get_result,
        }
    finally:
        DBOS.destroy()


def _workflows() -> tuple[Any, Any]:
    from dbos import DBOS

    @DBOS.step()
    def noop(context: dict[str, int]) -> dict[str, int]:
        return OUTPUT

    @DBOS.step()
    async def async_noop(context: dict[str, int]) -> dict[str, int]:
        return OUTPUT

    @DBOS.workflow()
    def chain(length: int) -> dict[str, int]:
        context = INPUT
        for _ in range(length):
            context = noop(context)
        return context

    @DBOS.workflow()
    async def fan(width: int) -> dict[str, int]:
        await asyncio.gather(*(async_noop(INPUT) for _ in range(width)))
        return await async_noop(INPUT)

    return chain, fan


def _call(workflow: Any, length: int) -> Wait:
    result = workflow(length)
    return lambda: result


def _engine(url: str) -> Any:
    """DBOS's own engine, with a write-ahead log that is not synced at each commit."""
    import sqlalchemy as sa

    engine = sa.create_engine(url)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    return engine


SIGKILL = "goes on from the last recorded step when the same process is started again"
COMPENSATION = "none (except blocks in the workflow, which are replayed)"
SHAPE = "one process, no workers; chains called in turn, fan-out by asyncio.gather; log_level ERROR"

VARIANTS = {
    "default": Variant(
        "DBOS on SQLite",
        f"its own SQLite settings (rollback journal, a sync at each commit); {SHAPE}",
        Guarantees("after each step, synced to disk", SIGKILL, COMPENSATION),
        arena,
    ),
    "wal": Variant(
        "DBOS on SQLite, WAL",
        f"an engine of our own: journal_mode WAL, synchronous NORMAL; {SHAPE}",
        Guarantees(
            "after each step; the last ones may be lost with the host (as with Redis everysec)",
            SIGKILL,
            COMPENSATION,
        ),
        partial(arena, wal=True),
    ),
}

if __name__ == "__main__":
    main("dbos", ("dbos", "sqlalchemy"), VARIANTS)
