"""Does a server take writes now, judged by reads alone?

The words are those of its refusals, see `refusals`.  The check writes nothing.
"""

from __future__ import annotations

from multiagents.storage.health import ServerHealth, read_info, read_server


async def read_refusal(key: str) -> str | None:
    """The word with which the server that has this key refuses writes.

    None: it takes them, or that is unknown.  One request if the server is healthy.
    """
    health = ServerHealth(await read_info(key=key) or {})
    if snapshots_stop(health) is None or replicas_of(health) is not None:
        health = await read_server(key=key)
    return refusal_of(health)


def refusal_of(health: ServerHealth) -> str | None:
    """One of `REFUSALS`; None: it takes writes, or that is unknown."""
    if is_replica(health):
        return "READONLY"
    if is_full(health):
        return "OOM"
    if file_failed(health) or snapshots_stop(health):
        return "MISCONF"
    found = replicas_of(health)
    return "NOREPLICAS" if found is not None and found[0] < found[1] else None


def is_replica(health: ServerHealth) -> bool:
    """Whether it is a replica of another server."""
    return health.info.get("role") == "slave"


def is_full(health: ServerHealth) -> bool:
    """Whether its data has reached its maxmemory, and it evicts nothing."""
    limit = health.number("maxmemory")
    used = health.number("used_memory") - health.number("mem_not_counted_for_evict")
    return 0 < limit <= used and health.setting("maxmemory-policy") == "noeviction"


def file_failed(health: ServerHealth) -> bool:
    """Whether the last write to its append-only file failed."""
    failed = health.info.get("aof_last_write_status", "ok") != "ok"
    return failed and health.setting("appendonly") == "yes"


def snapshots_stop(health: ServerHealth) -> bool | None:
    """Whether its last snapshot failed and stops writes; None: only CONFIG has the answer."""
    if health.info.get("rdb_last_bgsave_status", "ok") == "ok":
        return False
    stops = health.config.get("stop-writes-on-bgsave-error")
    if stops == "no" or health.config.get("save") == "":
        return False
    return None if stops is None else True


def replicas_of(health: ServerHealth) -> tuple[int, int] | None:
    """How many replicas are in time, and how many writes need; None: writes need none."""
    told = health.config.get("min-replicas-to-write", "")
    # INFO has the number of good replicas only if the server requires some.
    wanted = int(told) if told.isdigit() else int("min_slaves_good_slaves" in health.info)
    if not wanted or "min_slaves_good_slaves" not in health.info:
        return None
    return health.number("min_slaves_good_slaves"), wanted
