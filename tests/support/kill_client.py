"""How does a program start sagas, each in a separate process that may die of it?

    python -m tests.support.kill_client WORKFLOW SAGA_ID ...

A saga's id contains the call before or after which its process is killed; see `kill_points`.
Every process is a client that has only imported its modules (MULTIAGENTS_IMPORTS).
"""

from __future__ import annotations

import os
import signal
import sys
import traceback

from multiagents.hosting.runtime import app, start_saga
from tests.support import kill_points


def start_each(workflow: str, saga_ids: list[str]) -> None:
    """Start the sagas, one after another."""
    for saga_id in saga_ids:
        child = os.fork()
        if not child:
            _start(workflow, saga_id)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if ended not in (0, -signal.SIGKILL):
            sys.exit(f"the start of {saga_id} ended with {ended}")


def _start(workflow: str, saga_id: str) -> None:
    """Start a saga, and end this process in any case."""
    ended = 1
    try:
        assert kill_points.recorder is not None
        kill_points.recorder.begin(saga_id)
        start_saga.apply_async((workflow, {}), task_id=saga_id)
        ended = 0
    except Exception:  # noqa: BLE001 - told by the exit code; the parent's frames are not ours
        traceback.print_exc()
    finally:
        os._exit(ended)


if __name__ == "__main__":
    app.loader.import_default_modules()
    start_each(sys.argv[1], sys.argv[2:])
