"""What does the worker of `multiagents dev` print?

As a program: ``python -m multiagents.cli.dev.worker FD quiet|verbose CELERY_OPTIONS...`` is
``celery CELERY_OPTIONS...`` that prints a line for each step event (`saga_lines`), and writes a
`WorkerReport` to the file descriptor FD once it is ready.  ``print()`` of user code is not changed.
Quiet omits Celery's banner, its messages below a warning, and its traceback of a failed step.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import structlog
from celery import signals
from celery.__main__ import main as celery

from multiagents.cli.dev.report import QUIET, WorkerReport
from multiagents.cli.output import wants_colours
from multiagents.cli.own_code import own_files
from multiagents.cli.saga_lines import SHORT_ID, Line, first_step, lines_of, started
from multiagents.core.log_records import add_step_filter, current
from multiagents.core.marks import read_mark
from multiagents.core.near import did_you_mean, nearest
from multiagents.core.states import Kind
from multiagents.core.texts import columns_of
from multiagents.engine.continuation import Move
from multiagents.hosting.runtime import Runtime, runtime
from multiagents.hosting.start_log import MISSING_LOG
from multiagents.worker_sdk import loop_watch
from multiagents.workflows import registry
from multiagents.workflows.files import SUFFIXES
from multiagents.workflows.missing_functions import Missing, missing

NOISY = ("celery", "kombu", "amqp")
"""Loggers that write a line at INFO for every message."""
MOST_STARTS = 10_000
"""How many started sagas a process remembers."""
DEBUGGED_S = 86_400.0
"""How long an event loop may be blocked when a debugger may be in use."""
ROOT_WARNING = r"\s*You're running the worker with superuser"


class Teller:
    """Prints the lines about the sagas that this process moves."""

    def __init__(self, hosting: Runtime, *, verbose: bool) -> None:
        self._runtime = hosting
        self._verbose = verbose
        self._colours = sys.stderr.isatty() and wants_colours()
        self._started: OrderedDict[str, None] = OrderedDict()

    def moved(self, move: Move) -> None:
        """Called after a commit of this process, while a reported error is being handled."""
        sweep_s = self._runtime.settings.sweep_s
        for line in lines_of(move, sys.exception(), verbose=self._verbose, sweep_s=sweep_s):
            self._print(line)

    def begins(self, task: Any = None, **_: Any) -> None:
        """Called before a task runs, which may be the first step of a saga."""
        mark = read_mark(task.request)
        if mark is None or mark.kind is not Kind.RUN or mark.attempt > 1:
            return
        coordinator = self._runtime.host.coordinator
        flow = coordinator.repository.workflow(mark.saga_id, mark.version)
        workflow = self._runtime.edge.run(flow)
        if mark.step == first_step(workflow) and mark.saga_id not in self._started:
            self._started[mark.saga_id] = None
            self._print(started(workflow, mark.saga_id))
        if len(self._started) > MOST_STARTS:
            self._started.popitem(last=False)

    def _print(self, line: Line) -> None:
        try:
            columns = columns_of(sys.stderr)
            sys.stderr.write(f"{line.text(colours=self._colours, columns=columns)}\n")
            sys.stderr.flush()
        except OSError:  # `dev` is gone, and this worker ends as well
            return


class StepFormatter(logging.Formatter):
    """``order 3636fd8b  reserve  INFO shop: asking the bank``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with its saga and step."""
        text = f"{record.levelname} {super().format(record)}"
        names = record.__dict__
        if not names.get("saga"):
            return text
        return f"{names['workflow']} {names['saga'][:SHORT_ID]}  {names['step']}  {text}"


class _EngineLog(structlog.PrintLogger):
    """Prints this package's messages from WARNING on; user code sets its own level."""

    def info(self, message: str) -> None:
        """Print nothing: such a line is for operators of a worker."""

    debug = info


def _logger_of(*names: Any) -> Any:
    if MISSING_LOG in names:
        return structlog.ReturnLogger()  # the report has it
    own = bool(names) and str(names[0]).startswith("multiagents.")
    return _EngineLog() if own else structlog.PrintLogger()


class _NotOfSteps(logging.Filter):
    """Drops Celery's lines about the end of a step's task: the saga's line says the same."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not current.get().saga


class _WithoutTrace(logging.Filter):
    """Drops tracebacks of the main process: that of a lost child shows billiard's code."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        return True


def _set_up_logs(**_: Any) -> None:
    """Set up the logs instead of Celery: user code from INFO on, Celery from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(StepFormatter("%(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    add_step_filter(root)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").addFilter(_NotOfSteps())
    logging.getLogger("celery.worker.request").addFilter(_WithoutTrace())
    structlog.configure(logger_factory=_logger_of)


def _keep_prints(conf: Any = None, **_: Any) -> None:
    conf.worker_redirect_stdouts = False


def lacked(each: Missing, functions: Iterable[str]) -> str:
    """The consequence of an unknown function, with the suggestion that a start would give."""
    then = did_you_mean(nearest(each.function, functions)) or "start a worker that has it, too"
    return (
        f"workflow {each.workflow!r}{each.place} cannot be started: no worker function here is"
        f" called {each.function!r}; {then}"
    )


def report_of(consumer: Any) -> WorkerReport:
    """The report about the worker of a consumer."""
    folder = runtime.settings.workflows
    files = [] if folder is None else list(folder.iterdir())
    functions, workflows = runtime.catalog.local_names, registry.registered()
    lacking = missing(workflows.values(), functions, place_of=registry.place_of)
    return WorkerReport(
        slots=max(1, consumer.pool.num_processes or 0),
        queues=tuple(sorted(consumer.app.amqp.queues.consume_from)),
        functions=functions,
        workflows={name: list(each.examples) for name, each in workflows.items()},
        missing={each.function: lacked(each, functions) for each in lacking} if functions else {},
        files=tuple(own_files(each for each in files if each.suffix.lower() in SUFFIXES)),
    )


def main() -> None:
    """Run the worker."""
    fd, mode, *options = sys.argv[1:]
    sys.argv = ["celery", *options]
    if mode == QUIET:
        warnings.filterwarnings("ignore", ROOT_WARNING)
        signals.setup_logging.connect(_set_up_logs)
        # Where Celery writes its banner and "warm shutdown", whatever its log level.
        sys.__stdout__ = open(os.devnull, "w")  # type: ignore[misc]  # noqa: SIM115
    if sys.stdin.isatty():
        loop_watch.watch.blocked_s = DEBUGGED_S
    teller = Teller(runtime, verbose=mode != QUIET)
    runtime.host.coordinator.watchers.append(teller.moved)

    def ready(sender: Any = None, **_: Any) -> None:
        with os.fdopen(int(fd), "w") as pipe:
            pipe.write(f"{report_of(sender).to_json()}\n")

    signals.task_prerun.connect(teller.begins)
    signals.celeryd_init.connect(_keep_prints)
    signals.worker_ready.connect(ready)
    celery()


if __name__ == "__main__":
    main()
