"""Which workers record what they do, wait for gates and end in every possible way?

They record each event as a line in one file of the folder KILL_DIR, so a SIGKILL loses nothing;
``Effect`` is such a line. A gate is a file there: a waiting worker goes on once the test has made
it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from multiagents import NonRetryableError, WorkerExecutionError, WorkflowBuilder, worker
from tests.support.processes import wait_for

GATE_S = 120.0
ONE_TRY = {"max_attempts": 1}
QUICK = {"max_attempts": 3, "backoff_s": 0.05, "jitter": False}


def folder() -> Path:
    return Path(os.environ["KILL_DIR"])


@dataclass(frozen=True)
class Effect:
    """One thing that a worker did."""

    saga: str
    what: str
    step: str
    attempt: int
    at: float
    pid: int


def note(context: Any, what: str) -> None:
    """Record an effect before anything else can happen."""
    saga, step, attempt = context.transaction_id, context.step, context.attempt
    with (folder() / "effects").open("a") as file:
        file.write(f"{saga} {what} {step} {attempt} {time.time()} {os.getpid()}\n")


def effects(where: Path, saga: str) -> list[Effect]:
    """What the workers did for a saga, in order."""
    path = where / "effects"
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [
        Effect(row[0], row[1], row[2], int(row[3]), float(row[4]), int(row[5]))
        for row in rows
        if row[0] == saga
    ]


def wait_for_gate(name: str) -> None:
    """Wait for a file of that name."""
    wait_for((folder() / name).exists, GATE_S, f"gate {name}")


@worker("kp_do")
def do(context: Any) -> dict[str, Any]:
    note(context, "run")
    return {context.step: context.attempt}


@worker("kp_fail")
def fail(context: Any) -> dict[str, Any]:
    note(context, "run")
    raise NonRetryableError("broken")


@worker("kp_undo")
def undo(context: Any) -> dict[str, Any]:
    note(context, "undo")
    return {}


@worker("kp_gate")
def gate(context: Any) -> dict[str, Any]:
    """Wait in the attempts that have a gate; input ``gates`` maps an attempt to its name."""
    note(context, "run")
    name = context.get("gates", {}).get(str(context.attempt))
    if name:
        wait_for_gate(name)
    note(context, "ran")
    return {context.step: context.attempt}


@worker("kp_beats", retry=1)
def beats(context: Any) -> dict[str, Any]:
    """Report progress until the gate opens, then keep a checkpoint."""
    note(context, "run")
    gate = folder() / context["gate"]
    count = 0
    while not gate.exists():
        count += 1
        context.heartbeat(progress=0.5, note=f"beat {count}")
        threading.Event().wait(0.1)
    note(context, "saves")
    context.checkpoint({"beats": count})
    note(context, "saved")
    wait_for_gate(context["end"])
    return {"beats": count}


@worker("kp_loop_beats", retry={"max_attempts": 2, "backoff_s": 0.05})
async def loop_beats(context: Any) -> dict[str, Any]:
    """Keep a checkpoint on the loop, and fail at once; returns what the next attempt finds."""
    note(context, "run")
    if context.attempt == 1:
        while not (folder() / context["gate"]).exists():  # noqa: ASYNC110 - a test's gate
            await asyncio.sleep(0.05)
        context.heartbeat(progress=0.5)
        context.checkpoint("from the loop")
        note(context, "saved")
        raise WorkerExecutionError("not yet")
    return {"found": context.checkpoint_value}


@worker("kp_suicide", retry={"max_attempts": 2, "backoff_s": 0.05})
def suicide(context: Any) -> dict[str, Any]:
    note(context, "run")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@worker("kp_flaky", retry=QUICK)
def flaky(context: Any) -> dict[str, Any]:
    note(context, "run")
    if context.attempt < 3:
        raise WorkerExecutionError("not yet")
    return {"attempt": context.attempt}


@worker("kp_hang", timeout_s=1, retry={**QUICK, "max_attempts": 2})
def hang(context: Any) -> dict[str, Any]:
    """Never end; record a soft limit, and ignore it if the input says so."""
    note(context, "run")
    try:
        wait_for_gate(f"never-{context.transaction_id}")
    except SoftTimeLimitExceeded:
        note(context, "soft")
        if not context.get("stubborn"):
            raise
        wait_for_gate(f"never-{context.transaction_id}")
    note(context, "ran")
    return {}


@worker("kp_async_hang", timeout_s=1, retry={**QUICK, "max_attempts": 2})
async def async_hang(context: Any) -> dict[str, Any]:
    note(context, "run")
    try:
        await asyncio.Event().wait()
    finally:
        note(context, "cleaned")
    return {}


@worker("kp_thread_hang", timeout_s=1, retry={**QUICK, "max_attempts": 2})
async def thread_hang(context: Any) -> dict[str, Any]:
    """Call a blocking client beside the loop."""
    note(context, "run")

    def call() -> dict[str, Any]:
        wait_for_gate(f"never-{context.transaction_id}")
        note(context, "ran")
        return {}

    return await asyncio.to_thread(call)


@worker("kp_block", timeout_s=2, retry=ONE_TRY)
async def block(context: Any) -> dict[str, Any]:
    """Call a blocking client on the loop."""
    note(context, "run")
    wait_for_gate(f"never-{context.transaction_id}")
    note(context, "ran")
    return {}


@worker("kp_innocent", timeout_s=1, retry={**QUICK, "max_attempts": 2})
async def innocent(context: Any) -> dict[str, Any]:
    note(context, "run")
    return {}


@worker("kp_patient", retry=ONE_TRY)
async def patient(context: Any) -> dict[str, Any]:
    note(context, "run")
    return {}


class Panic(BaseException):
    """An error outside `Exception`, as panics of Rust extensions are."""


@worker("kp_panic", retry=ONE_TRY)
def panic(context: Any) -> dict[str, Any]:
    note(context, "run")
    raise Panic("index out of bounds")


def _two(name: str, first: str, second: str, **options: Any) -> None:
    builder = WorkflowBuilder(name, **options)
    builder.add_step("one", first, compensation="kp_undo")
    builder.add_step("two", second, compensation="kp_undo")
    builder.build().register()


_two("kp_breaks", "kp_do", "kp_fail")
WorkflowBuilder("kp_chooses").add_step("one", "kp_do", compensation="kp_undo").add_step(
    "two", "kp_fail", compensation="kp_undo", when="has(input.never) == false"
).build().register()
_two("kp_completes", "kp_do", "kp_do")
_two("kp_long", "kp_do", "kp_gate")
_two("kp_suicides", "kp_do", "kp_suicide")
_two("kp_hangs", "kp_do", "kp_hang")
_two("kp_async_hangs", "kp_do", "kp_async_hang")
_two("kp_thread_hangs", "kp_do", "kp_thread_hang")
_two("kp_blocks", "kp_do", "kp_block")
WorkflowBuilder("kp_innocents").add_step("one", "kp_innocent").build().register()
WorkflowBuilder("kp_patients").add_step("one", "kp_patient").build().register()
_two("kp_panics", "kp_do", "kp_panic")
_two("kp_flakes", "kp_do", "kp_flaky")
_two("kp_late", "kp_do", "kp_gate", timeout_s=1.5)
WorkflowBuilder("kp_once").add_step(
    "one", "kp_gate", compensation="kp_undo", retry=ONE_TRY
).build().register()
_two("kp_paced", "kp_gate", "kp_do")
