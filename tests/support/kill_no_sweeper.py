"""A worker without a sweeper: its thread only says, once, what this worker knows.

Imported by a worker (MULTIAGENTS_IMPORTS); shows that the messages alone move a saga.
"""

from __future__ import annotations

from multiagents.hosting.sweeper_thread import SweeperThread

SweeperThread._run = SweeperThread._housekeep  # type: ignore[method-assign]
