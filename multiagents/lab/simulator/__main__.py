"""What does ``python -m multiagents.lab.simulator`` run?

`survey`, which a process of the pool can import: none imports a ``__main__`` of a package.
"""

from __future__ import annotations

import sys

from multiagents.lab.simulator.survey import main

if __name__ == "__main__":
    sys.exit(main())
