"""Which steps does a trip take?  Worker functions and a workflow, independent of the web."""

from __future__ import annotations

from multiagents import Context, NonRetryableError, WorkflowBuilder, worker


@worker("web_book_flight")
async def book_flight(context: Context) -> dict[str, str]:
    """A seat, under a key by which an airline would know a repeated booking."""
    return {"flight": f"{context['city']} 09:40", "key": context.idempotency_key}


@worker("web_cancel_flight")
async def cancel_flight(context: Context) -> dict[str, str]:
    """Give the seat back."""
    return {"cancelled": f"{context['city']} 09:40"}


@worker("web_book_hotel")
async def book_hotel(context: Context) -> dict[str, str]:
    """A room; none in Atlantis."""
    if context["city"] == "Atlantis":
        raise NonRetryableError("no hotel in Atlantis", clean=True)
    return {"hotel": f"Grand Hotel {context['city']}"}


trip = (
    WorkflowBuilder("web_trip")
    .add_step("flight", book_flight, compensation=cancel_flight)
    .add_step("hotel", book_hotel)
    .build()
    .register()
)
