"""How fast is LangGraph with a synchronous SQLite checkpointer?

The graphs run in one process, one after the other: its saver holds a lock, and two threads were no
faster.
"""

from __future__ import annotations

import operator
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Annotated, Any, TypedDict

from bench.harness import INPUT, OUTPUT, Begin, Guarantees, Options, Variant, Wait, main


class State(TypedDict, total=False):
    """The nodes' shared state; nodes that run at the same time may only add to ``parts``."""

    n: int
    ok: int
    parts: Annotated[list[int], operator.add]


@contextmanager
def arena(options: Options, *, sync: str = "FULL") -> Iterator[Mapping[str, Begin]]:
    """Compiled graphs in this process."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    path = options.data / "langgraph.sqlite"
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        connection.execute(f"PRAGMA synchronous={sync}")
        saver = SqliteSaver(connection)
        yield {
            "chain10": partial(_invoke, _chain(10, saver)),
            "chain100": partial(_invoke, _chain(100, saver)),
            "fanout10": partial(_invoke, _fan(10, saver)),
        }


def _noop(state: State) -> dict[str, int]:
    return OUTPUT


def _part(state: State) -> dict[str, list[int]]:
    return {"parts": [1]}


def _chain(length: int, saver: Any) -> Any:
    from langgraph.graph import END, START, StateGraph

    graph = StateGraph(State)
    names = [f"s{number}" for number in range(length)]
    for name in names:
        graph.add_node(name, _noop)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=saver)


def _fan(width: int, saver: Any) -> Any:
    from langgraph.graph import END, START, StateGraph

    graph = StateGraph(State)
    names = [f"p{number}" for number in range(width)]
    for name in names:
        graph.add_node(name, _part)
        graph.add_edge(START, name)
    graph.add_node("join", _noop)
    graph.add_edge(names, "join")
    graph.add_edge("join", END)
    return graph.compile(checkpointer=saver)


def _invoke(graph: Any) -> Wait:
    config = {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 1000}
    result = graph.invoke(INPUT, config, durability="sync")
    return lambda: result


SIGKILL = (
    "nothing resumes a run by itself: a new call of the graph with its thread id continues from the"
    " last checkpoint"
)
COMPENSATION = "none"
SHAPE = "durability='sync'; one process, no workers, graphs invoked in turn"

VARIANTS = {
    "default": Variant(
        "LangGraph on SQLite",
        f"SqliteSaver as it is (WAL, a sync at each commit); {SHAPE}",
        Guarantees("after each step, synced to disk", SIGKILL, COMPENSATION),
        arena,
    ),
    "normal": Variant(
        "LangGraph on SQLite, NORMAL",
        f"SqliteSaver on a connection with synchronous NORMAL (WAL); {SHAPE}",
        Guarantees(
            "after each step; the last ones may be lost with the host (as with Redis everysec)",
            SIGKILL,
            COMPENSATION,
        ),
        partial(arena, sync="NORMAL"),
    ),
}

if __name__ == "__main__":
    main("langgraph", ("langgraph", "langgraph-checkpoint-sqlite"), VARIANTS)
