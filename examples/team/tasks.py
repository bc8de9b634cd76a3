"""Which Celery tasks does the team have already?

An existing app and its tasks.  Nothing here depends on sagas or was changed for them.
"""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

BROKER = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")

app = Celery("billing", broker=BROKER, backend=BROKER)
app.conf.update(task_default_queue="billing", task_acks_late=True, timezone="Europe/Zurich")


@app.task(name="billing.create_invoice")  # type: ignore[untyped-decorator]  # celery has no types
def create_invoice(customer: str, amount: int) -> str:
    """The number of a new invoice."""
    number = f"{customer}-{amount}"
    _note(f"invoice {number} written")
    return number


@app.task(name="billing.void_invoice")  # type: ignore[untyped-decorator]  # celery has no types
def void_invoice(number: str | None) -> None:
    """Cross an invoice out, if one was written."""
    if number is not None:
        _note(f"invoice {number} voided")


@app.task(name="billing.book_courier")  # type: ignore[untyped-decorator]  # celery has no types
def book_courier(*, address: str) -> dict[str, str]:
    """Have a courier come; none goes to Atlantis."""
    if address == "Atlantis":
        raise ValueError(f"no courier goes to {address}")
    _note(f"courier to {address} booked")
    return {"courier": "Hermes"}


def _note(line: str) -> None:
    """One line in the team's journal."""
    with Path(os.environ["BILLING_JOURNAL"]).open("a", encoding="utf-8") as journal:
        journal.write(f"{line}\n")
