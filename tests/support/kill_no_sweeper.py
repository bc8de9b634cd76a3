"""How does a worker run without a sweeper?

Its thread only announces the worker, once. A worker imports this module (MULTIAGENTS_IMPORTS) to
show that messages alone move a saga.
"""

from __future__ import annotations

from multiagents.hosting.sweeper_thread import SweeperThread

SweeperThread._run = SweeperThread._housekeep  # type: ignore[method-assign]
