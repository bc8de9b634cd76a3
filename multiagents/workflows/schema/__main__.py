"""How is the published schema made?  ``python -m multiagents.workflows.schema > FILE``."""

from __future__ import annotations

import sys

from multiagents.workflows.schema import text

if __name__ == "__main__":
    sys.stdout.write(text())
