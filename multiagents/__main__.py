"""What does ``python -m multiagents`` do?  The same as the command ``multiagents``."""

from __future__ import annotations

import sys

from multiagents.cli import main

if __name__ == "__main__":
    sys.exit(main())
