"""How do existing Celery tasks become a saga without a change?

    python -m examples.existing_tasks

examples/team/tasks.py is the team's code, examples/team/sagas.py the addition.  The worker is the
team's own: ``celery -A examples.team.sagas worker``.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from multiagents import SagaFailed
from multiagents.testing.sandbox import sandbox


async def main() -> None:
    """Bill two customers; no courier goes to the second one."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        env = {"BILLING_JOURNAL": str(journal)}
        with sandbox(app="examples.team.sagas", queues=None, stub=False, env=env):
            bill("Ada", "Bern")
            bill("Bob", "Atlantis")
        print("journal:")
        print(journal.read_text(), end="")


def bill(customer: str, address: str) -> None:
    """Run one saga on the team's app."""
    from examples.team.sagas import start_saga  # reads the addresses that the sandbox has set

    given = {"customer": customer, "amount": 120, "address": address}
    result = start_saga.delay("billing", given)
    try:
        print(f"{customer}: completed, {result.get(timeout=30)}")
    except SagaFailed as error:
        undone = ", ".join(f"{step} {undo['state']}" for step, undo in error.undo.items())
        print(f"{customer}: {error.state}, {error.error['message']} (undo: {undone})")


if __name__ == "__main__":
    asyncio.run(main())
