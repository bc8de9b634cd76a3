"""What happens to attempts on a blocked event loop among greenlets?

This is a program, because gevent changes a whole process. It prints each attempt's end as JSON.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import asyncio  # noqa: E402 - after gevent's patches
import json  # noqa: E402
import threading  # noqa: E402
from concurrent.futures import Future, ThreadPoolExecutor  # noqa: E402
from typing import Any  # noqa: E402

from multiagents.worker_sdk import loop, loop_watch  # noqa: E402
from multiagents.worker_sdk.context import Context  # noqa: E402
from multiagents.worker_sdk.execute import execute  # noqa: E402
from multiagents.worker_sdk.registry import Worker  # noqa: E402

DEADLINE_S = 20.0
begun, told, go = threading.Event(), threading.Event(), threading.Event()


async def block(context: Context) -> dict[str, Any]:
    """Block the loop, which no ``async def`` should do."""
    begun.set()
    go.wait(DEADLINE_S)
    return {}


async def where(context: Context) -> dict[str, Any]:
    """A harmless step that returns its loop."""
    return {"loop": id(asyncio.get_running_loop())}


def begin(pool: ThreadPoolExecutor, function: Any, name: str, **options: Any) -> Future[Any]:
    context = Context(transaction_id="S", step=name, attempt=1)
    return pool.submit(execute, Worker(function, name), context, token=name, **options)


def main() -> None:
    watch = loop_watch.watch = loop_watch.LoopWatch(beat_s=0.05, blocked_s=0.3)
    places: list[str] = []

    def tell(report: loop_watch.Report) -> None:
        places.append(report["place"])
        told.set()

    watch.tell = tell
    with ThreadPoolExecutor(3) as pool:
        blocking = begin(pool, block, "blocks", timeout_s=0.5)
        begun.wait(DEADLINE_S)
        quick = begin(pool, where, "quick", timeout_s=0.1)
        patient = begin(pool, where, "patient")
        told.wait(DEADLINE_S)
        errors = [blocking.exception(DEADLINE_S), quick.exception(DEADLINE_S)]
        pulse = watch._pulses[loop.home()]
        while not pulse.is_told_kept:
            threading.Event().wait(0.01)
        go.set()
        after = [patient.result(DEADLINE_S), begin(pool, where, "after").result(DEADLINE_S)]
    one_loop = after == 2 * [{"loop": id(loop.process_loop())}]
    found = [[type(error).__name__, str(error)] for error in errors]
    print(json.dumps({"errors": found, "one_loop": one_loop, "place": places[0]}))


if __name__ == "__main__":
    main()
