"""How is a state stored?  ``python -m tests.upgrade.state.make``

It runs all `stories` on a separate server, stores the server's data, and then brings every saga to
its end.  Run it once per released format, with the code of that release; it overwrites an existing
file only with ``--again``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from multiagents import __version__
from multiagents.devserver.server import EmbeddedServer
from multiagents.storage.formats import FORMAT
from tests.upgrade.state.player import Player
from tests.upgrade.state.stored import State, dump, path_of
from tests.upgrade.state.stories import STORIES


def record(url: str) -> State:
    """Live through the stories on an empty server."""
    player = Player(url)
    player.announce()
    later = []
    for story in STORIES:
        later += [[story.__name__, *act] for act in story(player) or ()]
    sagas = [row["transaction_id"] for row in player.host.call("list", limit=1000)]
    keys, at_ms = dump(player.edge.client), player.clock.now_ms()
    before = {saga: player.present(saga) for saga in sorted(sagas)}
    player.told = {}
    player.finish(later)
    expected = {saga: player.outcome(saga) for saga in sorted(sagas)}
    player.close()
    return State(FORMAT, __version__, at_ms, keys, later, before, expected)


def main(arguments: Sequence[str] | None = None) -> int:
    """Store the state of the present format; 1 if it is there already."""
    parser = argparse.ArgumentParser(prog="python -m tests.upgrade.state.make")
    parser.add_argument("--again", action="store_true", help="replace what is there")
    given = parser.parse_args(arguments)
    if path_of(FORMAT).exists() and not given.again:
        print(f"format {FORMAT} is stored already", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        print(record(server.url).save())
    return 0


if __name__ == "__main__":
    sys.exit(main())
