"""Does a server take writes now, as far as it tells without being written to?

The words are those with which it would refuse, see `refusals`.  Nothing is written to find out.
"""

from __future__ import annotations

from multiagents.storage.health import ServerHealth, read_info, read_server


async def read_refusal(key: str) -> str | None:
    """The word with which the server that has this key refuses writes.

    None: it takes them, or does not tell.  One request where nothing is wrong.
    """
    health = ServerHealth(await read_info(key=key) or {})
    if snapshots_stop(health) is None or replicas_of(health) is not None:
        health = await read_server(key=key)
    return refusal_of(health)


def refusal_of(health: ServerHealth) -> str | None:
    """One of `REFUSALS`; None: it takes writes, or whether it does is not known."""
    if is_replica(health):
        return "READONLY"
    if is_full(health):
        return "OOM"
    if file_failed(health) or snapshots_stop(health):
        return "MISCONF"
    found = replicas_of(health)
    return "NOREPLICAS" if found is not None and found[0] < found[1] else None


def is_replica(health: ServerHealth) -> bool:
    """Whether it follows another server, which alone is written to."""
    return health.info.get("role") == "slave"


def is_full(health: ServerHealth) -> bool:
    """Whether what it holds has reached its maxmemory, and it makes no room by itself."""
    limit = health.number("maxmemory")
    used = health.number("used_memory") - health.number("mem_not_counted_for_evict")
    return 0 < limit <= used and health.setting("maxmemory-policy") == "noeviction"


def file_failed(health: ServerHealth) -> bool:
    """Whether the last write to its append-only file has failed."""
    failed = health.info.get("aof_last_write_status", "ok") != "ok"
    return failed and health.setting("appendonly") == "yes"


def snapshots_stop(health: ServerHealth) -> bool | None:
    """Whether its last snapshot has failed and stops writes; None: only CONFIG would tell."""
    if health.info.get("rdb_last_bgsave_status", "ok") == "ok":
        return False
    stops = health.config.get("stop-writes-on-bgsave-error")
    if stops == "no" or health.config.get("save") == "":
        return False
    return None if stops is None else True


def replicas_of(health: ServerHealth) -> tuple[int, int] | None:
    """How many are in time, and how many it needs to take writes; None: it needs none."""
    told = health.config.get("min-replicas-to-write", "")
    # INFO has the number of good ones only where some are wanted.
    wanted = int(told) if told.isdigit() else int("min_slaves_good_slaves" in health.info)
    if not wanted or "min_slaves_good_slaves" not in health.info:
        return None
    return health.number("min_slaves_good_slaves"), wanted
