"""Which problems does `doctor` find, and what fixes each?

Each check is a function from data that `doctor` has read to one `Check`.  No I/O here.
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
"""The first version with XAUTOCLAIM, which the event bus needs."""
SKEW_MS = 2000
"""The engine corrects its clock by the server's.  Beyond this, times in other logs mislead."""
MEMORY_WARN, MEMORY_FAIL = 0.80, 0.95
"""Shares of maxmemory."""
OVERDUE_WARN_MS, OVERDUE_FAIL_MS = 10_000, 60_000
"""A worker that sweeps starts due items at most 1 s late."""
VISIBILITY_S = 3600.0
"""kombu's default visibility timeout."""
NAMES_SHOWN = 5
GROW = "raise maxmemory (CONFIG SET maxmemory, and redis.conf), or delete data of other programs"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; ``fix`` is empty if nothing needs to be done."""

    name: str
    status: Status
    message: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """The finding as JSON shows it."""
        return asdict(self)


Fleet = Mapping[str, Mapping[str, Any]]


def version(health: ServerHealth) -> Check:
    """The server has the commands that the engine needs, and takes writes."""
    name = "server"
    if "INFO" in health.refused:
        fix = "grant the user +info, or check the server's settings yourself"
        return Check(name, "warn", "reachable, but INFO is forbidden: most checks are skipped", fix)
    kind = "Valkey" if "valkey_version" in health.info else "Redis"
    text = health.info.get("valkey_version") or health.info.get("redis_version", "0")
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if kind == "Redis" and numbers < MIN_VERSION:
        return Check(name, "fail", f"Redis {text} is too old", "use Redis 6.2 or newer, or Valkey")
    if is_replica(health):
        return Check(name, "fail", "is a replica: it takes no writes", "set the primary's URL")
    if health.info.get("cluster_enabled") == "1":
        fix = "use a server without cluster mode: Celery's broker cannot use one"
        return Check(name, "fail", f"{kind} {text} in cluster mode", fix)
    return Check(name, "ok", f"reachable, {kind} {text}")


def place(home: Home) -> Check:
    """Where this app's sagas are; all processes of the app should give the same answer."""
    if home.flaw:
        return Check("place", "warn", f"{home}; {home.flaw}", f"name one server with {REDIS_URL}")
    return Check("place", "ok", str(home))


def silent(reason: str, shards: Sequence[int], total: int) -> Check:
    """One of several servers cannot be used."""
    message = f"{reason}; it holds {len(shards)} of {total} shards, whose sagas do not move"
    fix = "start it, or correct MULTIAGENTS_STATE_URLS; never remove it while it holds sagas"
    return Check("server", "fail", message, fix)


def broker(where: str, reason: str) -> Check:
    """The broker answers.  ``reason``: why it does not; empty if it does."""
    if reason:
        fix = f"start it, or correct the broker's URL: broker_url, or {REDIS_URL}"
        return Check("broker", "fail", f"{reason}; no step is sent", fix)
    return Check("broker", "ok", f"reachable at {where}, separate from the sagas' server")


def append_only(health: ServerHealth) -> Check:
    """A restart of the server keeps the data."""
    name = "append-only file"
    value = health.setting("appendonly")
    if value is None:
        return _forbidden(name, "appendonly yes")
    if value != "yes":
        fix = "set `appendonly yes` (redis.conf, or CONFIG SET appendonly yes)"
        return Check(name, "warn", "off: a restart of the server loses sagas", fix)
    if file_failed(health):
        return Check(name, "fail", "the last write to it failed", "check the server's disk and log")
    sync = health.config.get("appendfsync")
    if sync == "no":
        fix = "set `appendfsync everysec`, or `always` to lose nothing"
        return Check(name, "warn", "on, but the operating system decides when to write it", fix)
    if sync is None:
        return Check(name, "ok", "on")
    kept = "every confirmed write" if sync == "always" else "all but the last second"
    return Check(name, "ok", f"on, {sync}: a crash of the host keeps {kept}")


def eviction(health: ServerHealth) -> Check:
    """The server never evicts keys to make room."""
    name = "eviction"
    policy, evicted = health.setting("maxmemory-policy"), health.number("evicted_keys")
    if policy is None:
        return _forbidden(name, "maxmemory-policy noeviction")
    if policy != "noeviction":
        fix = "set `maxmemory-policy noeviction`; use another server for caches"
        message = f"maxmemory-policy is {policy}: an eviction would lose a saga"
        return Check(name, "warn", message, fix) if not evicted else _evicted(evicted, fix)
    if evicted:
        return _evicted(evicted, "see `lost sagas` below")
    return Check(name, "ok", "noeviction")


def _evicted(count: int, fix: str) -> Check:
    message = f"{count_of(count, 'key')} evicted since the server's start: sagas may be lost"
    return Check("eviction", "fail", message, fix)


def missing(ids: Sequence[str]) -> Check:
    """Every listed saga exists."""
    name = "lost sagas"
    if not ids:
        return Check(name, "ok", "none among the sagas that were checked")
    message = f"listed but missing: {names_of(ids)}; the server has evicted or lost them"
    fix = "find out what their steps did: see docs/explanation/redis-failures.md"
    return Check(name, "fail", message, fix)


def memory(health: ServerHealth) -> Check:
    """The server has memory left."""
    name = "memory"
    used, limit = health.number("used_memory"), health.number("maxmemory")
    if not limit:
        return Check(name, "ok", f"{_mib(used)} used, no maxmemory set")
    share = used / limit
    status: Status = "ok" if share < MEMORY_WARN else "warn" if share < MEMORY_FAIL else "fail"
    fix = "raise maxmemory, or lower MULTIAGENTS_RETENTION_S to delete ended sagas earlier"
    message = f"{_mib(used)} of {_mib(limit)} used ({share:.0%})"
    if is_full(health):
        message += ": full, so it refuses writes (OOM); sagas do not move, starts are refused"
        fix = f"{GROW}; sagas then continue, and nothing is lost"
    return Check(name, status, message, "" if status == "ok" else fix)


def snapshots(health: ServerHealth) -> Check:
    """The last snapshot did not fail: after a failure the server takes no writes."""
    name = "snapshots"
    if health.info.get("rdb_last_bgsave_status", "ok") == "ok":
        return Check(name, "ok", "the last one did not fail")
    fix = "check the server's disk and log; then run BGSAVE: if it succeeds, writes resume"
    stops = snapshots_stop(health)
    if stops is None:
        return Check(name, "warn", "the last one failed, so writes may be refused (MISCONF)", fix)
    if not stops:
        return Check(name, "warn", "the last one failed; the server still takes writes", fix)
    return Check(name, "fail", f"the last one failed: {_refuses('MISCONF')}", fix)


def replicas(health: ServerHealth) -> Check:
    """Enough replicas are connected for the server to take writes."""
    name = "replicas"
    found = replicas_of(health)
    if found is None:
        return Check(name, "ok", "writes need none")
    good, wanted = found
    if good >= wanted:
        return Check(name, "ok", f"{good} in time, writes need {wanted}")
    fix = (
        "start them, or find out why they lag; or lower min-replicas-to-write: a crash then loses"
        " more"
    )
    message = f"{good} in time, writes need {wanted}: {_refuses('NOREPLICAS')}"
    return Check(name, "fail", message, fix)


def _refuses(word: str) -> str:
    return f"{REFUSALS[word]}, so it refuses writes ({word}); sagas do not move"


def clocks(skew_ms: int, fleet: Fleet, now_ms: int) -> Check:
    """Hosts and server agree on the time.  ``skew_ms``: server minus this host."""
    name = "clocks"
    fix = "set the clocks of all hosts by NTP (chrony, systemd-timesyncd)"
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
        fix = "set the servers' clocks by NTP: while the first is down, the next one's clock counts"
        return Check("clocks", "warn", f"the servers differ by {apart_ms / 1000:.1f} s", fix)
    return Check("clocks", "ok", f"the servers differ by {apart_ms} ms")


def heartbeats(late: Mapping[str, int]) -> Check:
    """Leases are renewed in time.  ``late``: late renewals by host."""
    if not late:
        return Check("heartbeats", "ok", "no worker renewed a lease late")
    message = ", ".join(f"{host} {count} times" for host, count in sorted(late.items()))
    fix = "mark functions that compute for seconds with kind='cpu', or raise MULTIAGENTS_LEASE_S"
    return Check("heartbeats", "warn", f"leases were renewed late: {message}", fix)


WHAT_IS_DUE = "leases, retries, timeouts and deletions of ended sagas"


def due(health: DueHealth, now_ms: int) -> Check:
    """Workers handle due items in time."""
    late_ms = 0 if health.oldest_ms is None else max(0, now_ms - health.oldest_ms)
    waiting = f"{count_of(health.members, 'item')}, {health.overdue} overdue: {WHAT_IS_DUE}"
    if health.stray:
        member, at_ms = health.stray[0]
        when = f"the first ({member}) in {span(at_ms - now_ms)}"
        what = f"{count_of(len(health.stray), 'item')} due later than any item can be, {when}"
        key = f"ZADD ma:{{s00}}:due XX {now_ms} MEMBER"
        fix = f"compare the clocks, because one was wrong; then make each item due now: {key}"
        return Check("due set", "warn", what, fix)
    if not health.overdue or late_ms < OVERDUE_WARN_MS:
        return Check("due set", "ok", waiting)
    status: Status = "warn" if late_ms < OVERDUE_FAIL_MS else "fail"
    fix = "start a worker, or more of them, because each one sweeps; check their logs for errors"
    late = f"{health.overdue} overdue, the oldest by {late_ms / 1000:.0f} s"
    what = f"{count_of(health.members, 'item')}, {late}: {WHAT_IS_DUE}"
    return Check("due set", status, what, fix)


def attention(ids: Sequence[str], *, count: int, paused: int = 0) -> Check:
    """No saga waits for an operator.

    ``ids``: some of the ``count`` sagas that wait.  ``paused``: how many of them are paused.
    """
    name = "attention"
    if not count:
        return Check(name, "ok", "no saga waits for an operator")
    verb = "waits" if count == 1 else "wait"
    shown = some_of(ids, NAMES_SHOWN, count=count)
    held = f" ({paused} paused)" if paused else ""
    message = f"{count_of(count, 'saga')} {verb} for an operator{held}: {shown}"
    fix = "run `multiagents attention` to see what each one needs"
    return Check(name, "warn", message, fix)


def dead_letters(count: int, oldest_ms: int | None, now_ms: int, unlisted: Sequence[str]) -> Check:
    """No dead letter exists, and their list is complete.

    ``oldest_ms``: since when the oldest waits.  ``unlisted``: sagas whose dead letters it lacks.
    """
    name = "dead letters"
    if unlisted:
        message = f"{count} listed, but the list lacks those of {names_of(unlisted)}"
        fix = "workers of an older version parked them: run `multiagents dead-letters reindex`"
        return Check(name, "warn", message, fix)
    if not count:
        return Check(name, "ok", "none")
    age = f", the oldest for {span(max(0, now_ms - oldest_ms))}" if oldest_ms is not None else ""
    what = "1 step or undo is" if count == 1 else f"{count} steps and undos are"
    message = f"{what} parked{age}"
    return Check(name, "warn", message, "run `multiagents dead-letters list`")


def visibility(transport_options: Mapping[str, Any], workflows: Iterable[Workflow]) -> Check:
    """The broker does not redeliver a message while its step is still running."""
    name = "visibility time-out"
    limit_s = float(transport_options.get("visibility_timeout") or VISIBILITY_S)
    longest = longest_step(workflows)
    if longest is None or longest[0] < limit_s:
        return Check(name, "ok", f"{limit_s:g} s, longer than every step's timeout")
    return Check(
        name,
        "warn",
        f"{limit_s:g} s, but step {longest[1]} may take {longest[0]:g} s: plain tasks with late"
        " acknowledgement then run twice",
        f'set broker_transport_options = {{"visibility_timeout": {2 * longest[0]:.0f}}}',
    )


def longest_step(workflows: Iterable[Workflow]) -> tuple[float, str] | None:
    """The longest timeout of a step or an undo in seconds, and its ``workflow.step``."""
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
    """The timeout that a plain task itself has."""
    return target.timeout_s if isinstance(target, TaskCall) else None


def result_backend(backend: str | None) -> Check:
    """``AsyncResult.get`` has a result backend."""
    name = "result backend"
    if not backend or backend.startswith("disabled"):
        fix = "set result_backend, or wait with `multiagents watch ID` instead"
        return Check(name, "warn", "none: start_saga.delay(...).get() waits forever", fix)
    return Check(name, "ok", "set")


def serializers(accept: Iterable[str]) -> Check:
    """A message is data, never code."""
    name = "accepted content"
    accepted = [str(kind) for kind in accept]
    risky = [kind for kind in accepted if "pickle" in kind or "python-serialize" in kind]
    if risky:
        fix = 'set accept_content = ["json"]'
        message = f"{names_of(risky)}: a client of the broker can run any code in the workers"
        return Check(name, "warn", message, fix)
    return Check(name, "ok", names_of(accepted))


def _forbidden(name: str, wanted: str) -> Check:
    fix = f"check in the provider's console that `{wanted}` is set"
    return Check(name, "warn", "unknown: the server forbids INFO and CONFIG", fix)


def names_of(names: Iterable[str]) -> str:
    """The first of these names, and how many more there are."""
    return some_of(names, NAMES_SHOWN)


def count_of(number: int, what: str) -> str:
    """The number and the noun, in the plural unless the number is 1."""
    if number == 1:
        return f"1 {what}"
    if what.endswith("y") and what[-2] not in "aeiou":
        return f"{number} {what[:-1]}ies"
    return f"{number} {what}es" if what.endswith("s") else f"{number} {what}s"


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"
