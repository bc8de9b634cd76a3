"""How is the published schema made?  ``python -m multiagents.orchestrator.schema > FILE``."""

from __future__ import annotations

import sys

from multiagents.orchestrator.schema import text

if __name__ == "__main__":
    sys.stdout.write(text())
