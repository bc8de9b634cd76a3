"""Which functions and workflows do the running workers have?

A starting worker process publishes its worker functions and workflows, then signs of life.  So a
client can start a saga by name without the code, and an unknown name is found before the saga
starts.  Answers are cached for a moment, since every start reads the catalog.

A process that ends publishes its end.  Its functions still count for `ALIVE_MS`: it may be
restarting, and its steps must find their queue then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from multiagents.core.clock import Clock
from multiagents.core.json_text import dumps
from multiagents.core.names import QUEUE_IO
from multiagents.core.ports import WorkerInfo
from multiagents.engine import launches
from multiagents.engine.cache import Recent
from multiagents.engine.launches import Launch
from multiagents.storage.calls import Plain
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.keys import Shard
from multiagents.storage.replies import hash_of, text_of, text_or_none
from multiagents.workflows.workflow import Workflow, from_canonical

FRESH_MS = 3000
"""How long an answer about workers is cached."""
ALIVE_MS = 30_000
"""A process without a sign of life for this long counts as gone."""
FORGET_MS = 3_600_000
"""After this long its record is removed too: a killed process may never come back."""
PEER_MS = 100
"""A worker reads the fleet at an interval of this time for each member, so that a fleet of any size
reads it ten times a second."""
TELL_MS = 300_000
"""Interval between two checks that unchanged workflows are still stored."""


STOPPING, ENDED = "stopping", "ended"
"""The ``state`` of a process that takes no more work, or has ended; a running one has none."""


Members = Mapping[str, dict[str, Any]]
"""Worker processes by hostname."""


def split(fleet: Members) -> tuple[Members, Members]:
    """Those that take work, and those that are stopping."""
    stopping = {name: each for name, each in fleet.items() if each.get("state") == STOPPING}
    return {name: each for name, each in fleet.items() if name not in stopping}, stopping


class Catalog:
    """Reads and writes what running workers publish; lives on the first shard."""

    def __init__(self, clock: Clock, *, route_of: Callable[[str], str] = lambda task: "") -> None:
        """``route_of``: the queue to which this process's app routes a plain task; empty: not
        known."""
        self._clock = clock
        self.route_of = route_of
        self._shard = Shard(0)
        self._fleet: dict[str, dict[str, Any]] = {}
        self._read_ms = 0
        self._alone: set[str] = set()
        self._local: dict[str, WorkerInfo] = {}
        self._seen: Recent[str, str] = Recent()
        self._told: dict[str, str] = {}
        self._shown: dict[str, str] = {}
        """The examples that were published with them."""
        self._told_ms = self._launched_ms = 0
        self._said: dict[str, dict[str, Any]] = {}
        """What workers of this process published last about themselves."""

    def add_local(self, info: WorkerInfo) -> None:
        """A worker function of this very process."""
        self._local[info.name] = info

    def local(self, name: str) -> WorkerInfo | None:
        """A worker function of this process."""
        return self._local.get(name)

    @property
    def local_names(self) -> tuple[str, ...]:
        """The worker functions of this process."""
        return tuple(self._local)

    def queue_of(self, name: str) -> str:
        """The queue of a worker by the last answer; the default queue for an unknown worker."""
        if name in self._local:
            return self._local[name].queue
        for member in self._fleet.values():
            if name in member["workers"]:
                return str(member["workers"][name])
        return QUEUE_IO

    def alone(self, name: str) -> bool:
        """Whether each step of a worker is a message of its own, by the last answer."""
        if name in self._local:
            return self._local[name].alone
        return name in self._alone

    def slots(self, queue: str) -> int:
        """How many steps the running workers of a queue can do at once; 0 = not known."""
        consuming = (each for each in self._fleet.values() if queue in each["queues"])
        return sum(each.get("slots", 1) for each in consuming)

    @property
    def takers(self) -> Members:
        """The running workers that take work, by the last answer: those that stop take none."""
        return split({name: each for name, each in self._fleet.items() if not _has_ended(each)})[0]

    def crew(self, queue: str, name: str) -> dict[str, int]:
        """The running workers of a queue that have a function: hostname -> slots."""
        return {
            host: each.get("slots", 1)
            for host, each in self._fleet.items()
            if queue in each["queues"] and name in each["workers"]
        }

    async def publish(
        self,
        hostname: str,
        queues: Iterable[str],
        workflows: Iterable[Workflow],
        *,
        slots: int = 1,
        launch: Launch | None = None,
        broker: str = "",
        at_work: int | None = None,
        routes: Mapping[str, str] | None = None,
        busy: int | None = None,
    ) -> None:
        """Publish what this process has, and a sign of life; repeated while it lives.

        ``slots``: how many steps it can run at once.  ``launch``: how it was started.  ``broker``:
        the kind of its broker.  ``at_work``: how many tasks it still runs while it stops; None: it
        takes work.  ``routes``: plain task -> the queue to which its app's routing sends it.
        ``busy``: how many of its slots are busy.
        """
        now_ms, known = self._clock.now_ms(), list(workflows)
        about = {
            "at_ms": now_ms,
            "queues": sorted(queues),
            "slots": slots,
            "broker": broker,
            "workers": {name: info.queue for name, info in self._local.items()},
            "alone": [name for name, info in self._local.items() if info.alone],
            "workflows": len(known),
            **_optional(launch, at_work=at_work, routes=routes, busy=busy),
        }
        self._said[hostname] = about
        await self._tell_examples(known)
        # First: a client that sees this worker may ask for its workflows.
        told = await self._tell({each.name: each.canonical() for each in known})
        fleet = self._shard.catalog("fleet")
        is_new = await Plain(("HSET", fleet, hostname, json.dumps(about)), int)
        await self._remember(launch, now_ms)
        # A server without this worker's record may have lost everything.
        if is_new and not told:
            await self._fill_in()

    async def _remember(self, launch: Launch | None, now_ms: int) -> None:
        if launch is not None and now_ms - self._launched_ms >= TELL_MS:
            await launches.remember(replace(launch, at_ms=now_ms))
            self._launched_ms = now_ms

    async def _tell(self, named: dict[str, str]) -> bool:
        """Publish the workflows that are new here; fill in the others where the server has none.

        So the worker that started last defines a name: one that still has last week's workflow
        does not bring it back.  False if the server was not checked.
        """
        new = [text for pair in named.items() - self._told.items() for text in pair]
        if new:
            await Plain(("HSET", self._shard.catalog("workflows"), *new), int)
            self._told = named
        tell = bool(new) or abs(self._clock.now_ms() - self._told_ms) >= TELL_MS
        if tell:
            await self._fill_in()
        return tell

    async def _tell_examples(self, workflows: list[Workflow]) -> None:
        """Publish their examples likewise, which are no part of the definitions."""
        named = {each.name: dumps(each.examples) if each.examples else "" for each in workflows}
        changed = dict(named.items() - self._shown.items())
        key = self._shard.catalog("examples")
        if new := [text for pair in changed.items() if pair[1] for text in pair]:
            await Plain(("HSET", key, *new), int)
        if gone := [name for name, text in changed.items() if not text]:
            await Plain(("HDEL", key, *gone), int)
        self._shown = named

    async def _fill_in(self) -> None:
        for what, texts in (("workflows", self._told), ("examples", self._shown)):
            key = self._shard.catalog(what)
            for name, text in texts.items():
                if text:
                    await Plain(("HSETNX", key, name, text), int)
        self._told_ms = self._clock.now_ms()

    async def retire(self, hostname: str) -> None:
        """Record that a worker of this process has ended, so that it is no longer shown."""
        about = self._said.pop(hostname, None)
        if about is None:
            return
        text = json.dumps({**about, "state": ENDED, "at_ms": self._clock.now_ms()})
        await Plain(("HSET", self._shard.catalog("fleet"), hostname, text), int)
        for what in ("late", "loops"):
            await Plain(("HDEL", self._shard.catalog(what), hostname), int)

    async def withdraw(self, hostname: str) -> None:
        """Remove the record of a process that has ended."""
        for what in ("fleet", "late", "loops"):
            await Plain(("HDEL", self._shard.catalog(what), hostname), int)

    async def count_late(self, hostname: str) -> None:
        """Count one more late renewal of a lease on this host."""
        await Plain(("HINCRBY", self._shard.catalog("late"), hostname, 1), int)

    async def late(self) -> dict[str, int]:
        """How many renewals came late, by the hostname of running workers."""
        counts = await Plain(("HGETALL", self._shard.catalog("late")), hash_of)
        fleet = await self.fleet()
        return {host: int(count) for host, count in counts.items() if host in fleet}

    async def report_loop(self, hostname: str, report: dict[str, Any]) -> None:
        """Record that an event loop of a worker is blocked, or no more; the last report counts.

        ``report``: ``blocked``, ``lag_ms``, ``place`` in the code, ``by`` (saga, step, attempt and
        worker of the attempt that blocks it; empty: not known), ``token`` of that attempt's claim,
        and ``held``: the tokens of all attempts that are on the loop.
        """
        text = json.dumps({**report, "at_ms": self._clock.now_ms()})
        await Plain(("HSET", self._shard.catalog("loops"), hostname, text), int)

    async def loops(self) -> dict[str, dict[str, Any]]:
        """The last report of an event loop, by the hostname of running workers."""
        texts = await Plain(("HGETALL", self._shard.catalog("loops")), hash_of)
        fleet = await self.fleet()
        return {host: json.loads(text) for host, text in texts.items() if host in fleet}

    async def refresh(self, *, force: bool = False) -> None:
        """Read the fleet again, unless the last answer is fresh."""
        now_ms = self._clock.now_ms()
        if not force and abs(now_ms - self._read_ms) < FRESH_MS:
            return
        fleet = await Plain(("HGETALL", self._shard.catalog("fleet")), hash_of)
        members = {name: found for name, text in fleet.items() if (found := _member(text))}
        # A sign of life from the future dates from before a clock was set back.
        silent_ms = {name: abs(now_ms - member["at_ms"]) for name, member in members.items()}
        self._fleet = {
            name: member for name, member in members.items() if silent_ms[name] < ALIVE_MS
        }
        self._alone = {name for each in self._fleet.values() for name in each.get("alone", ())}
        self._read_ms = now_ms
        gone = [name for name, silence_ms in silent_ms.items() if silence_ms >= FORGET_MS]
        if gone:
            await Plain(("HDEL", self._shard.catalog("fleet"), *gone), int)

    async def keep_up(self) -> None:
        """Keep the fleet roughly up to date; cheap, so call it as often as you like.

        The answer of a large fleet is long, so it is read less often.
        """
        if abs(self._clock.now_ms() - self._read_ms) < max(FRESH_MS, PEER_MS * len(self._fleet)):
            return
        try:
            await self.refresh(force=True)
        except UNREACHABLE:
            # The first server is away: keep the last answer, or every claim and start on the
            # other servers would wait for it.
            self._read_ms = self._clock.now_ms()

    @property
    def peers(self) -> int:
        """How many processes ran by the last answer; at least 1, this one."""
        return max(1, len(self._fleet))

    async def fleet(self) -> dict[str, dict[str, Any]]:
        """Running worker processes: hostname -> queues, workers (name -> queue), at_ms, slots,
        workflows (how many they register).

        A process that ``celery worker`` started also has app and imports.  A stopping one has state
        and at_work.  One whose workflows call plain tasks has their routes.
        """
        await self.refresh(force=True)
        found = self._fleet.items()
        return {name: member for name, member in found if not _has_ended(member)}

    @property
    def has_signs_of_life(self) -> bool:
        """Whether any process had given a recent sign of life, by the last answer."""
        return bool(self._fleet)

    async def missing(self, names: set[str]) -> set[str]:
        """Which of these worker names neither this process nor any running one has.

        The last answer counts for longer while the server is unreachable.
        """
        if names <= self._local.keys():
            return set()
        try:
            await self.refresh()
        except UNREACHABLE:
            if names - self._known():
                raise
            self._read_ms = self._clock.now_ms()  # or each start would wait for the server
        missing = names - self._known()
        if missing:
            await self.refresh(force=True)
            missing = names - self._known()
        return missing

    def has_no_worker(self, name: str) -> bool:
        """Whether workers run and none of them has this name, by the last answer."""
        return bool(self._fleet) and name not in self._known()

    async def worker_names(self) -> list[str]:
        """All worker names that are known now."""
        await self.refresh()
        return sorted(self._known())

    async def workflow(self, name: str) -> Workflow | None:
        """A published workflow; the copy last read here while the server is unreachable."""
        key = self._shard.catalog("workflows")
        try:
            text = await Plain(("HGET", key, name), text_or_none)
        except UNREACHABLE:
            text = self._seen.get(name)
            if text is None:
                raise
        if text is None:
            return None
        self._seen.put(name, text)
        return from_canonical(text)

    async def examples(self, name: str) -> list[dict[str, Any]]:
        """The example inputs of a published workflow; none if it has none, or is not known."""
        text = await Plain(("HGET", self._shard.catalog("examples"), name), text_or_none)
        return [] if text is None else list(json.loads(text))

    async def workflow_names(self) -> list[str]:
        """The names of all published workflows."""
        key = self._shard.catalog("workflows")
        reply = await Plain(("HKEYS", key), lambda r: [text_of(name) for name in r])
        return sorted(reply)

    def _known(self) -> set[str]:
        return {*self._local, *(n for member in self._fleet.values() for n in member["workers"])}


def _optional(
    launch: Launch | None,
    *,
    at_work: int | None,
    routes: Mapping[str, str] | None,
    busy: int | None,
) -> dict[str, Any]:
    """What only some processes publish about themselves."""
    found: dict[str, Any] = {}
    if launch is not None:
        found |= {"app": launch.app, "imports": launch.imports}
    if at_work is not None:
        found |= {"state": STOPPING, "at_work": at_work}
    if routes:
        found["routes"] = dict(routes)
    if busy is not None:
        found["busy"] = busy
    return found


def _has_ended(member: Mapping[str, Any]) -> bool:
    return bool(member.get("state") == ENDED)


def _member(text: str) -> dict[str, Any] | None:
    """What a process published about itself; None if unreadable, so that the others still count."""
    try:
        found: dict[str, Any] = json.loads(text)
        return found if found.keys() >= {"at_ms", "queues", "workers"} else None
    except (ValueError, AttributeError):
        return None
