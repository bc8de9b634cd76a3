"""What may be wrong, and what is to be done about it?

Each check is a function from what `doctor` has read to one `Check`.  No I/O here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from multiagents.core.settings import REDIS_URL, Home
from multiagents.core.texts import some_of
from multiagents.operations.explain.saga import span
from multiagents.storage.health import DueHealth, ServerHealth
from multiagents.storage.refusals import REFUSALS
from multiagents.storage.writes import file_failed, is_full, is_replica, replicas_of, snapshots_stop
from multiagents.workflows.step import TaskCall
from multiagents.workflows.workflow import Workflow

Status = Literal["ok", "warn", "fail"]

MIN_VERSION = (6, 2)
"""The first server with XAUTOCLAIM, on which the event bus relies."""
SKEW_MS = 2000
"""The engine corrects clocks by the server's; beyond this other programs' times will puzzle."""
MEMORY_WARN, MEMORY_FAIL = 0.80, 0.95
"""Shares of maxmemory."""
OVERDUE_WARN_MS, OVERDUE_FAIL_MS = 10_000, 60_000
"""Due items start at most 1 s late where a worker sweeps."""
VISIBILITY_S = 3600.0
"""kombu's visibility time-out where none is set."""
NAMES_SHOWN = 5
GROW = "raise maxmemory (CONFIG SET maxmemory, and redis.conf), or delete what is not the sagas'"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; ``fix`` is empty where nothing is to be done."""

    name: str
    status: Status
    message: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """As JSON shows it."""
        return asdict(self)


Fleet = Mapping[str, Mapping[str, Any]]


def version(health: ServerHealth) -> Check:
    """The server speaks what the engine needs, and is one to write to."""
    name = "server"
    if "INFO" in health.refused:
        fix = "allow the user +info, or look at the server's settings yourself"
        return Check(name, "warn", "reachable, but INFO is forbidden: little can be checked", fix)
    kind = "Valkey" if "valkey_version" in health.info else "Redis"
    text = health.info.get("valkey_version") or health.info.get("redis_version", "0")
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if kind == "Redis" and numbers < MIN_VERSION:
        return Check(name, "fail", f"Redis {text} is too old", "use Redis 6.2 or newer, or Valkey")
    if is_replica(health):
        return Check(name, "fail", "is a replica: nothing can be written", "name the primary's URL")
    if health.info.get("cluster_enabled") == "1":
        fix = "use a server without cluster mode: Celery's broker cannot use one"
        return Check(name, "fail", f"{kind} {text} in cluster mode", fix)
    return Check(name, "ok", f"reachable, {kind} {text}")


def place(home: Home) -> Check:
    """Where this app's sagas are; all its processes should say the same."""
    if home.flaw:
        return Check("place", "warn", f"{home}; {home.flaw}", f"name one server with {REDIS_URL}")
    return Check("place", "ok", str(home))


def silent(reason: str, shards: Sequence[int], total: int) -> Check:
    """One server of several cannot be used."""
    message = f"{reason}; it holds {len(shards)} of {total} shards, whose sagas stand still"
    fix = "start it, or correct MULTIAGENTS_STATE_URLS; never leave it out while it holds sagas"
    return Check("server", "fail", message, fix)


def broker(where: str, reason: str) -> Check:
    """Messages have somewhere to go.  ``reason``: why not, empty if they have."""
    if reason:
        fix = f"start it, or correct the broker's URL: broker_url, or {REDIS_URL}"
        return Check("broker", "fail", f"{reason}; no step is sent", fix)
    return Check("broker", "ok", f"reachable at {where}, apart from the sagas")


def append_only(health: ServerHealth) -> Check:
    """A restart of the server keeps what was written."""
    name = "append-only file"
    value = health.setting("appendonly")
    if value is None:
        return _forbidden(name, "appendonly yes")
    if value != "yes":
        fix = "set `appendonly yes` (redis.conf, or CONFIG SET appendonly yes)"
        return Check(name, "warn", "off: a restart of the server loses sagas", fix)
    if file_failed(health):
        return Check(
            name, "fail", "the last write of it failed", "look at the server's disk and log"
        )
    sync = health.config.get("appendfsync")
    if sync == "no":
        fix = "set `appendfsync everysec`, or `always` to lose nothing"
        return Check(name, "warn", "on, but only the system decides when it is on disk", fix)
    if sync is None:
        return Check(name, "ok", "on")
    kept = "everything that was confirmed" if sync == "always" else "all but the last second"
    return Check(name, "ok", f"on, {sync}: a crash of the host keeps {kept}")


def eviction(health: ServerHealth) -> Check:
    """The server never throws keys away to make room."""
    name = "eviction"
    policy, evicted = health.setting("maxmemory-policy"), health.number("evicted_keys")
    if policy is None:
        return _forbidden(name, "maxmemory-policy noeviction")
    if policy != "noeviction":
        fix = "set `maxmemory-policy noeviction`; use another server for caches"
        message = f"maxmemory-policy is {policy}: evictions would lose sagas"
        return Check(name, "warn", message, fix) if not evicted else _evicted(evicted, fix)
    if evicted:
        return _evicted(evicted, "see below which sagas are gone")
    return Check(name, "ok", "noeviction")


def _evicted(count: int, fix: str) -> Check:
    message = f"{count_of(count, 'key')} thrown away since the server's start: sagas may be gone"
    return Check("eviction", "fail", message, fix)


def missing(ids: Sequence[str]) -> Check:
    """Every saga that is listed is there."""
    name = "lost sagas"
    if not ids:
        return Check(name, "ok", "none of those looked at")
    message = f"listed and gone: {names_of(ids)}; the server has thrown them away or lost them"
    fix = "find out what their steps have done: see docs/explanation/redis-failures.md"
    return Check(name, "fail", message, fix)


def memory(health: ServerHealth) -> Check:
    """There is room left."""
    name = "memory"
    used, limit = health.number("used_memory"), health.number("maxmemory")
    if not limit:
        return Check(name, "ok", f"{_mib(used)} used, no maxmemory set")
    share = used / limit
    status: Status = "ok" if share < MEMORY_WARN else "warn" if share < MEMORY_FAIL else "fail"
    fix = "raise maxmemory, or lower MULTIAGENTS_RETENTION_S so that finished sagas go earlier"
    message = f"{_mib(used)} of {_mib(limit)} used ({share:.0%})"
    if is_full(health):
        message += ": full, so it refuses writes (OOM); sagas stand still, starts are refused"
        fix = f"{GROW}; sagas then go on by themselves, nothing is lost"
    return Check(name, status, message, "" if status == "ok" else fix)


def snapshots(health: ServerHealth) -> Check:
    """None has failed, after which the server takes no writes."""
    name = "snapshots"
    if health.info.get("rdb_last_bgsave_status", "ok") == "ok":
        return Check(name, "ok", "the last one has not failed")
    fix = "look at the server's disk and log; then BGSAVE, by which it learns that it can write"
    stops = snapshots_stop(health)
    if stops is None:
        return Check(name, "warn", "the last one failed, so writes may be refused (MISCONF)", fix)
    if not stops:
        return Check(name, "warn", "the last one failed; writes are taken all the same", fix)
    return Check(name, "fail", f"the last one failed: {_refuses('MISCONF')}", fix)


def replicas(health: ServerHealth) -> Check:
    """There are as many as the server must have to take writes."""
    name = "replicas"
    found = replicas_of(health)
    if found is None:
        return Check(name, "ok", "none is needed to write")
    good, wanted = found
    if good >= wanted:
        return Check(name, "ok", f"{good} in time, and {wanted} needed to write")
    fix = (
        "start them, or see why they lag; or lower min-replicas-to-write, and lose more by a crash"
    )
    message = f"{good} in time, and {wanted} needed to write: {_refuses('NOREPLICAS')}"
    return Check(name, "fail", message, fix)


def _refuses(word: str) -> str:
    return f"{REFUSALS[word]}, so it refuses writes ({word}); sagas stand still"


def clocks(skew_ms: int, fleet: Fleet, now_ms: int) -> Check:
    """Hosts and server agree on the time.  ``skew_ms``: server minus this host."""
    name = "clocks"
    fix = "let NTP (chrony, systemd-timesyncd) set the clocks of all hosts"
    if abs(skew_ms) > SKEW_MS:
        side = "behind" if skew_ms > 0 else "ahead of"
        message = f"this host's clock is {abs(skew_ms) / 1000:.1f} s {side} the server's"
        return Check(name, "warn", message, fix)
    ahead = [host for host, member in fleet.items() if member["at_ms"] - now_ms > SKEW_MS]
    if ahead:
        message = f"the clocks of these workers are ahead of the server's: {names_of(ahead)}"
        return Check(name, "warn", message, fix)
    return Check(name, "ok", f"this host and the server differ by {abs(skew_ms)} ms")


def server_clocks(offsets_ms: Sequence[int]) -> Check:
    """Several servers agree on the time.  ``offsets_ms``: each one's, minus this host's."""
    apart_ms = max(offsets_ms) - min(offsets_ms)
    if apart_ms > SKEW_MS:
        fix = "let NTP set the servers' clocks: the next one's counts while the first is down"
        return Check("clocks", "warn", f"the servers differ by {apart_ms / 1000:.1f} s", fix)
    return Check("clocks", "ok", f"the servers differ by {apart_ms} ms")


def heartbeats(late: Mapping[str, int]) -> Check:
    """Leases are renewed in time.  ``late``: late renewals by host."""
    if not late:
        return Check("heartbeats", "ok", "no worker renewed its leases late")
    message = ", ".join(f"{host} {count} times" for host, count in sorted(late.items()))
    fix = "mark functions that compute for seconds kind='cpu', or raise MULTIAGENTS_LEASE_S"
    return Check("heartbeats", "warn", f"leases were renewed late: {message}", fix)


WHAT_IS_DUE = "of leases, retries, time-outs, and of ended sagas that are kept for a while"


def due(health: DueHealth, now_ms: int) -> Check:
    """What is due is done in time."""
    late_ms = 0 if health.oldest_ms is None else max(0, now_ms - health.oldest_ms)
    waiting = f"{count_of(health.members, 'time')} set, {health.overdue} overdue; {WHAT_IS_DUE}"
    if health.stray:
        member, at_ms = health.stray[0]
        when = f"the first ({member}) in {span(at_ms - now_ms)}"
        what = f"{count_of(len(health.stray), 'entry')} due later than anything may be, {when}"
        key = f"ZADD ma:{{s00}}:due XX {now_ms} MEMBER"
        fix = f"compare the clocks, for one was wrong; then bring each forward: {key}"
        return Check("due set", "warn", what, fix)
    if not health.overdue or late_ms < OVERDUE_WARN_MS:
        return Check("due set", "ok", waiting)
    status: Status = "warn" if late_ms < OVERDUE_FAIL_MS else "fail"
    fix = "start a worker, or more of them: each one sweeps; look into their logs for errors"
    late = f"{health.overdue} overdue, the oldest by {late_ms / 1000:.0f} s"
    what = f"{count_of(health.members, 'time')} set, {late}; {WHAT_IS_DUE}"
    return Check("due set", status, what, fix)


def attention(ids: Sequence[str], *, count: int, paused: int = 0) -> Check:
    """No saga waits for an operator.

    ``ids``: some of those that wait, of ``count``, of which so many are ``paused``.
    """
    name = "attention"
    if not count:
        return Check(name, "ok", "no saga waits for an operator")
    verb = "waits" if count == 1 else "wait"
    shown = some_of(ids, NAMES_SHOWN, count=count)
    held = f" ({paused} paused)" if paused else ""
    message = f"{count_of(count, 'saga')} {verb} for an operator{held}: {shown}"
    fix = "see `multiagents attention` for what each one needs"
    return Check(name, "warn", message, fix)


def dead_letters(count: int, oldest_ms: int | None, now_ms: int, unlisted: Sequence[str]) -> Check:
    """Nothing is parked, and the list of it is whole.

    ``oldest_ms``: since when the first waits; ``unlisted``: sagas of which the list lacks some.
    """
    name = "dead letters"
    if unlisted:
        message = f"{count} listed, but not those of {names_of(unlisted)}"
        fix = "workers of an older version parked them: run `multiagents dead-letters reindex`"
        return Check(name, "warn", message, fix)
    if not count:
        return Check(name, "ok", "none")
    age = f", the oldest for {span(max(0, now_ms - oldest_ms))}" if oldest_ms is not None else ""
    what = "1 step or undo is" if count == 1 else f"{count} steps and undos are"
    message = f"{what} parked{age}"
    return Check(name, "warn", message, "see `multiagents dead-letters list`")


def visibility(transport_options: Mapping[str, Any], workflows: Iterable[Workflow]) -> Check:
    """The broker does not hand out a message again while its step is still running."""
    name = "visibility time-out"
    limit_s = float(transport_options.get("visibility_timeout") or VISIBILITY_S)
    longest = longest_step(workflows)
    if longest is None or longest[0] < limit_s:
        return Check(name, "ok", f"{limit_s:g} s, longer than every step's time-out")
    return Check(
        name,
        "warn",
        f"{limit_s:g} s, but step {longest[1]} may take {longest[0]:g} s: plain tasks with late"
        " acknowledgement are then run twice",
        f'set broker_transport_options = {{"visibility_timeout": {2 * longest[0]:.0f}}}',
    )


def longest_step(workflows: Iterable[Workflow]) -> tuple[float, str] | None:
    """The longest time-out of a step or a compensation, and whose it is."""
    steps = [
        (seconds, f"{workflow.name}.{step.name}")
        for workflow in workflows
        for step in workflow.steps
        for seconds in (
            step.timeout_s or _timeout_of(step.worker),
            step.compensation_timeout_s or _timeout_of(step.compensation),
        )
        if seconds
    ]
    return max(steps, default=None)


def _timeout_of(target: object) -> float | None:
    """Of a plain task, which has its own."""
    return target.timeout_s if isinstance(target, TaskCall) else None


def result_backend(backend: str | None) -> Check:
    """``AsyncResult.get`` has somewhere to look."""
    name = "result backend"
    if not backend or backend.startswith("disabled"):
        fix = "set result_backend, or wait with `multiagents watch ID` instead"
        return Check(name, "warn", "none: start_saga.delay(...).get() waits for ever", fix)
    return Check(name, "ok", "set")


def serializers(accept: Iterable[str]) -> Check:
    """A message is data, never code."""
    name = "accepted content"
    accepted = [str(kind) for kind in accept]
    risky = [kind for kind in accepted if "pickle" in kind or "python-serialize" in kind]
    if risky:
        fix = 'set accept_content = ["json"]'
        message = f"{names_of(risky)}: whoever can write to the broker can run code in the workers"
        return Check(name, "warn", message, fix)
    return Check(name, "ok", names_of(accepted))


def _forbidden(name: str, wanted: str) -> Check:
    fix = f"see to it in the provider's console that `{wanted}` is set"
    return Check(name, "warn", "not known: the server forbids INFO and CONFIG", fix)


def names_of(names: Iterable[str]) -> str:
    """Some of these, and how many more."""
    return some_of(names, NAMES_SHOWN)


def count_of(number: int, what: str) -> str:
    """So many of these, in the plural if it is not one."""
    if number == 1:
        return f"1 {what}"
    if what.endswith("y"):
        return f"{number} {what[:-1]}ies"
    return f"{number} {what}es" if what.endswith("s") else f"{number} {what}s"


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"
