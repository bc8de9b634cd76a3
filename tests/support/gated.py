"""How is a saga started whose second step waits for a file?"""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command_line import Done, cli
from tests.support.processes import wait_for


def start_gated(url: str, gate: Path) -> str:
    """A saga whose second step has reported progress and waits for the gate."""
    saga_id = cli("start", "gated", "-i", json.dumps({"gate": str(gate)}), url=url).out.strip()
    wait_for(lambda: progress(cli("show", saga_id, "--json", url=url)), what="the heartbeat")
    return saga_id


def progress(shown: Done) -> object:
    return shown.json["steps"]["second"]["progress"]
