"""Which tasks of a team's own Celery app meet everything that Celery does to a task?

As in `kill_workers`, files of KILL_DIR record the events: ``plain`` has a line per run of a plain
task, ``TAG NAME PID``.  TEAM_BACKEND and TEAM_CONF (JSON) change the app.  Its workers' messages go
through Celery, because the team receives publishing signals; so only its workers import this.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from celery import Celery, signals
from celery.exceptions import Ignore, Reject, Retry

from multiagents import attach, worker
from tests.support.kill_workers import folder, note, wait_for_gate

RAISED: dict[str, type[Exception]] = {
    error.__name__: error for error in (Ignore, Reject, Retry, MemoryError)
}
_URL = os.environ.get("MULTIAGENTS_REDIS_URL", "redis://127.0.0.1:6379/0")

app = Celery("celery_team", broker=_URL, backend=os.environ.get("TEAM_BACKEND", _URL))
app.conf.update(
    task_default_queue="team",
    broker_connection_retry_on_startup=True,
    task_routes={"team.misrouted": {"expires": "soon"}},  # unreadable for Celery
)
app.conf.update(json.loads(os.environ.get("TEAM_CONF", "{}")))


def _note(given: Mapping[str, Any], name: str) -> None:
    with (folder() / "plain").open("a") as file:
        file.write(f"{given['tag']} {name} {os.getpid()}\n")


def _count(given: Mapping[str, Any], name: str) -> int:
    lines = (folder() / "plain").read_text().splitlines()
    return sum(line.startswith(f"{given['tag']} {name} ") for line in lines)


@signals.before_task_publish.connect(weak=False)  # type: ignore[untyped-decorator]  # no types
def expire(sender: Any = None, headers: Any = None, **_: Any) -> None:
    """Let the messages of two of the team's tasks expire at once."""
    if sender in ("team.late", "ct_late"):
        headers["expires"] = "2020-01-01T00:00:00+00:00"


@app.task(name="team.late")
def late(given: dict[str, Any]) -> dict[str, Any]:
    _note(given, "late")
    return {}


@app.task(name="team.work")
def work(given: dict[str, Any]) -> dict[str, Any]:
    _note(given, "work")
    return {"worked": given["tag"]}


@app.task(name="team.work_kept", acks_late=True)
def work_kept(given: dict[str, Any]) -> dict[str, Any]:
    """A task whose message stays until its end, as that of the next one does."""
    _note(given, "work_kept")
    return {}


@app.task(name="team.gate_kept", acks_late=True)
def gate_kept(given: dict[str, Any]) -> dict[str, Any]:
    _note(given, "gate_kept")
    wait_for_gate(given["tag"])
    return {}


@app.task(name="team.undo")
def undo(given: dict[str, Any]) -> dict[str, Any]:
    _note(given, "undo")
    return {}


@app.task(name="team.gate")
def gate(given: dict[str, Any]) -> dict[str, Any]:
    _note(given, "gate")
    wait_for_gate(given["tag"])
    return {"passed": given["tag"]}


@app.task(name="team.gate_breaks")
def gate_breaks(given: dict[str, Any]) -> None:
    _note(given, "gate_breaks")
    wait_for_gate(given["tag"])
    _divide(1, 0)


@app.task(name="team.overrun", time_limit=1)
def overrun(given: dict[str, Any]) -> None:
    _note(given, "overrun")
    wait_for_gate("never")


@app.task(name="team.die", acks_late=True, reject_on_worker_lost=True)
def die(given: dict[str, Any]) -> None:
    _note(given, "die")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="team.ignore")
def ignore(given: dict[str, Any]) -> None:
    _note(given, "ignore")
    raise Ignore


@app.task(name="team.reject")
def reject(given: dict[str, Any]) -> None:
    _note(given, "reject")
    raise Reject("not mine", requeue=False)


@app.task(name="team.requeue")
def requeue(given: dict[str, Any]) -> None:
    _note(given, "requeue")
    raise Reject("not now", requeue=True)


@app.task(name="team.requeue_late", acks_late=True)
def requeue_late(given: dict[str, Any]) -> dict[str, Any]:
    """Requeue itself until it has run as often as the input says."""
    _note(given, "requeue_late")
    if _count(given, "requeue_late") < given["times"]:
        raise Reject("not now", requeue=True)
    return {}


@app.task(name="team.again", bind=True, max_retries=2)
def again(self: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Retry itself as often as the input says, perhaps more than Celery allows."""
    _note(given, "again")
    if self.request.retries < given["retries"]:
        raise self.retry(countdown=given.get("countdown", 0.1), exc=ValueError("not yet"))
    return {}


@worker("ct_raise", retry={"max_attempts": 2, "backoff_s": 0.05})
def raise_it(context: Any) -> dict[str, Any]:
    """Raise the input's exception: one of Celery's own, or MemoryError."""
    note(context, "run")
    raise RAISED[context["what"]]


@worker("ct_late")
def ct_late(context: Any) -> dict[str, Any]:
    """Never called: its messages expire before they come."""
    note(context, "run")
    return {}


@worker("ct_bug", retry={"max_attempts": 2, "backoff_s": 0.05})
def ct_bug(context: Any) -> dict[str, Any]:
    """Fail in a function that it calls."""
    return {"half": _divide(1, 0)}


@worker("ct_async_bug", retry={"max_attempts": 2, "backoff_s": 0.05})
async def ct_async_bug(context: Any) -> dict[str, Any]:
    """The same, as a coroutine."""
    return {"half": _divide(1, 0)}


def _divide(total: float, parts: float) -> float:
    return total / parts


attach(app)
