"""Does the event loop of this process answer, and if not, which attempt blocks it?

A blocking call in an ``async def`` worker stops all other attempts on its loop.  While a loop has
attempts, a thread checks twice a second that it answers.  Rules:

1. A loop that has not answered for a second is *blocked*.  The log names the attempt whose code it
   runs, with its stack, and a report is stored for `doctor` and `explain`.
2. A blocked loop is *retired* when the attempt that blocks it was given up: its timeout and its
   second to clean up are over.  If another attempt is on the loop, `STUCK_S` is enough.  A new
   loop, under prefork a new process, takes its place.  Among greenlets none can: the watch waits.
3. An attempt that was not entered moves to the new loop, or is given back.  An entered one is given
   up, and does not count as a try: see `LoopBlocked`.

A blocking call that stops no other attempt may run on, as in a plain function.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from multiagents.worker_sdk.activity import Activity
from multiagents.worker_sdk.loop import AttemptLoop

BEAT_S = 0.5
"""The time between two checks of a loop."""
BLOCKED_S = 1.0
"""A loop that has not answered for so long is blocked."""
STUCK_S = 30.0
"""A blocked loop for which other attempts wait is retired after this time."""
AGAIN_S = 10.0
"""The time between two reports to the store while a loop is blocked."""
STACK_CHARS = 4000

log = structlog.get_logger(__name__)

Report = dict[str, Any]


@dataclass(eq=False)
class Pulse:
    """The answers of one loop."""

    home: AttemptLoop
    is_asked: bool = False
    silent_s: float = 0.0
    """How long it has not answered while this process ran.  A frozen process cannot answer, so a
    late check counts no more than two beats."""
    looked_at: float = 0.0
    told_at: float = 0.0
    """The time of the last report of the present blockage; 0: there is none."""
    blocker: Activity | None = None
    place: str = ""
    is_told_kept: bool = False
    """Whether the log says that it cannot be retired."""

    def ask(self, now: float) -> None:
        """Send it a call to answer."""
        self.is_asked, self.silent_s, self.looked_at = True, 0.0, now
        self.home.loop.call_soon_threadsafe(self._answer)

    def look(self, now: float, *, most_s: float) -> None:
        """Count the time since the last check without an answer, ``most_s`` at most."""
        self.silent_s += min(now - self.looked_at, most_s)
        self.looked_at = now

    def _answer(self) -> None:
        self.is_asked = False


class LoopWatch:
    """Watches the loops of one process; its thread sleeps while they have no attempts."""

    def __init__(
        self, *, beat_s: float = BEAT_S, blocked_s: float = BLOCKED_S, stuck_s: float = STUCK_S
    ) -> None:
        self.beat_s = beat_s
        self.blocked_s = blocked_s
        self.stuck_s = stuck_s
        self.ends_process = False
        """Whether a new process replaces this one."""
        self.tell: Callable[[Report], None] = lambda report: None
        self._pulses: dict[AttemptLoop, Pulse] = {}
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def report_to(self, tell: Callable[[Report], None], *, ends_process: bool) -> None:
        """Report blocked loops to ``tell``.  ``ends_process``: a new process replaces this one."""
        self.tell, self.ends_process = tell, ends_process

    def look_after(self, home: AttemptLoop) -> None:
        """Watch this loop, on which an attempt begins."""
        if home not in self._pulses:
            self._add(home)
        if not self._wanted.is_set():
            self._wanted.set()

    def lost_s(self, home: AttemptLoop, *, to_others_than: Activity) -> float:
        """The total time for which other attempts have blocked this loop."""
        pulse, lost_s = self._pulses.get(home), home.lost_s - to_others_than.blocked_s
        if pulse is not None and pulse.told_at and pulse.blocker is not to_others_than:
            lost_s += pulse.silent_s
        return lost_s

    def _add(self, home: AttemptLoop) -> None:
        with self._lock:
            self._pulses.setdefault(home, Pulse(home))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="multiagents-loop-watch", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._wanted.wait()
            pause.wait(self.beat_s)
            try:
                self.beat(time.monotonic())
            except Exception as error:  # noqa: BLE001 - the thread must survive any loop
                log.warning("cannot look after an event loop", error=repr(error))

    def beat(self, now: float) -> None:
        """Check each loop once."""
        for pulse in list(self._pulses.values()):
            self._look(pulse, now)
        if not any(p.home.attempts or p.is_asked for p in self._pulses.values()):
            self._wanted.clear()
            if any(pulse.home.attempts for pulse in self._pulses.values()):
                self._wanted.set()  # one has begun just now

    def _look(self, pulse: Pulse, now: float) -> None:
        home = pulse.home
        if home.loop.is_closed():
            self._pulses.pop(home, None)
        elif not pulse.is_asked:
            if pulse.told_at:
                self._answers_again(pulse)
            if home.attempts:
                pulse.ask(now)
        else:
            pulse.look(now, most_s=2 * self.beat_s)
            if pulse.silent_s >= self.blocked_s:
                self._is_blocked(pulse, now)

    def _is_blocked(self, pulse: Pulse, now: float) -> None:
        home, before = pulse.home, pulse.blocker
        stack = self._find(pulse)
        if not pulse.told_at or pulse.blocker is not before:
            what = {} if pulse.blocker is None else pulse.blocker.about
            for_s = round(pulse.silent_s, 1)
            log.warning("an event loop is blocked", for_s=for_s, **what, stack=stack)
            self._report(pulse, blocked=True)
            pulse.told_at = now
        elif now - pulse.told_at >= AGAIN_S:
            self._report(pulse, blocked=True)
            pulse.told_at = now
        if not home.is_retired and self._is_to_be_retired(pulse):
            (self._keep if home.is_greenlet else self._retire)(pulse)

    def _is_to_be_retired(self, pulse: Pulse) -> bool:
        home = pulse.home
        if pulse.blocker in home.left:
            return True
        others = [each for each in list(home.attempts) if each.activity is not pulse.blocker]
        return pulse.silent_s >= self.stuck_s and bool(others)

    def _find(self, pulse: Pulse) -> str:
        """Note the attempt that blocks it, and the place; returns its stack."""
        pulse.blocker, frame = pulse.home.running(), pulse.home.frame()
        if frame is None:
            pulse.place = ""
            return ""
        stack = traceback.extract_stack(frame)
        pulse.place = f"{stack[-1].filename}:{stack[-1].lineno} in {stack[-1].name}"
        return "".join(traceback.format_list(stack))[-STACK_CHARS:]

    def _answers_again(self, pulse: Pulse) -> None:
        log.warning("an event loop answers again", after_s=round(pulse.silent_s, 1))
        pulse.home.lost_s += pulse.silent_s
        if pulse.blocker is not None:
            pulse.blocker.blocked_s += pulse.silent_s
        self._report(pulse, blocked=False)
        pulse.told_at, pulse.blocker, pulse.place = 0.0, None, ""
        pulse.is_told_kept = False

    def _keep(self, pulse: Pulse) -> None:
        """Keep the loop: all greenlets share one thread, and asyncio runs one loop in each."""
        if not pulse.is_told_kept:
            pulse.is_told_kept = True
            why = blockage_by(pulse.blocker, pulse.silent_s)
            fix = "if it does not answer again, end this worker and start another"
            log.error("an event loop cannot be given up among greenlets", why=why, fix=fix)

    def _retire(self, pulse: Pulse) -> None:
        home, blocker = pulse.home, pulse.blocker
        why = blockage_by(blocker, pulse.silent_s)
        instead = "process" if self.ends_process else "loop"
        log.error("an event loop is given up, a new one takes its place", why=why, instead=instead)
        home.retire()
        for attempt in list(home.attempts):
            if attempt.activity is not blocker:
                attempt.displace(why, move=not self.ends_process)

    def _report(self, pulse: Pulse, *, blocked: bool) -> None:
        blocker = pulse.blocker
        by = {} if blocker is None else {**blocker.about, "worker": blocker.name}
        report = {
            "pid": os.getpid(),
            "blocked": blocked,
            "lag_ms": round(pulse.silent_s * 1000),
            "by": by,
            "token": "" if blocker is None else blocker.token,
            "place": pulse.place,
            "held": [attempt.activity.token for attempt in list(pulse.home.attempts)],
        }
        try:
            self.tell(report)
        except Exception as error:  # noqa: BLE001 - the loops need this thread
            log.warning("a blocked event loop is not reported", error=type(error).__name__)


def blocked_by_another(home: AttemptLoop, activity: Activity) -> str:
    """The other attempt that blocks this loop now, for people; empty if there is none."""
    blocker = home.running()
    if blocker is None or blocker is activity:
        return ""
    return blockage_by(blocker, 0.0)


def blockage_by(blocker: Activity | None, silent_s: float) -> str:
    """The attempt that blocks a loop, for people."""
    long = f", for {silent_s:.0f} s" if silent_s else ""
    if blocker is None:
        return f"the event loop of its process did not answer{long}"
    step, saga = blocker.about.get("step"), blocker.about.get("saga")
    whose = f" in step {step!r} of saga {saga}" if saga else ""
    return f"the event loop of its process was blocked by worker {blocker.name!r}{whose}{long}"


watch = LoopWatch()
"""Of the process, as its loops are: attempts of all its apps share a loop, and two watches would
retire it twice."""


def _renew() -> None:
    global watch
    watch = LoopWatch()


os.register_at_fork(after_in_child=_renew)
