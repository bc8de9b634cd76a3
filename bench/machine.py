"""On which machine and server did a run of the bench take place?"""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis


def facts(client: redis.Redis) -> dict[str, Any]:
    """The date, the machine and the server, by the names in the table."""
    info: Any = client.info("server")
    server = info.get("server_name", "redis")
    version = info.get(f"{server}_version", info["redis_version"])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "CPU": _cpu(),
        "Python": platform.python_version(),
        "server": f"{server} {version} (appendonly, everysec)",
    }


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return models[0] if models else platform.processor() or platform.machine()
