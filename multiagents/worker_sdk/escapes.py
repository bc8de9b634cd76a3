"""Which errors pass every ``except Exception`` of a worker function, and what do they mean?

A panic of an extension, a cancellation that leaks out of `asyncio.run`, ``GeneratorExit`` and
``sys.exit()`` end the attempt as a failure, like any other error.  Only an error that ends the
process is raised on; the attempt is then lost with the process.
"""

from __future__ import annotations

import signal
import sys
import threading

from multiagents.core.exceptions import WorkerExecutionError
from multiagents.worker_sdk.control import STOPS

COLD_STOP = "celery.concurrency.base"
"""The module whose `NotImplementedError` a cold stop raises."""


def ends_process(error: BaseException) -> bool:
    """Whether an error comes from the end of the process, and not from the function.

    Python's own handler of SIGINT raises KeyboardInterrupt, in the main thread alone.  Celery has
    another handler, and its children have none.
    """
    if isinstance(error, STOPS) or _is_terminated():
        return True
    if not isinstance(error, KeyboardInterrupt):
        return False
    by_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return by_python and threading.current_thread() is threading.main_thread()


def _is_terminated() -> bool:
    """Whether billiard's handler of SIGTERM has ended this process.

    A process that is a child of billiard has loaded it; so nothing is imported here.
    """
    billiard = sys.modules.get("billiard.common")
    return billiard is not None and bool(billiard.terminate_handler_fired())


def is_of_a_cold_stop(error: BaseException) -> bool:
    """Whether an error comes from a cold stop of Celery, raised within the running function.

    Celery's pool `solo` cannot end a job, and raises NotImplementedError.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = frame.tb_frame.f_globals.get("__name__") if frame is not None else None
    return isinstance(error, NotImplementedError) and where == COLD_STOP


def failure_of_escape(worker: str, error: BaseException) -> WorkerExecutionError:
    """The failure of an attempt that ended by such an error."""
    if isinstance(error, SystemExit):
        return WorkerExecutionError(f"worker {worker!r} called sys.exit()")
    said = f"{type(error).__name__}: {_text_of(error)}".removesuffix(": ")
    return WorkerExecutionError(f"worker {worker!r} raised {said}")


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - the user's own __str__ may raise anything
        return f"(its message could not be read: {type(broken).__name__})"
