"""How does a FastAPI application start sagas and report them?

    MULTIAGENTS_IMPORTS=examples.web.trips celery -A multiagents worker
    uvicorn examples.web.fastapi_app:app

The asyncio interface keeps its connections as long as the application runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from examples.web.trips import trip
from multiagents import IdempotencyConflict, InvalidInput, NoServer, Orchestrator, UnknownSaga


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connect before the first request, in each process; close after the last one."""
    async with Orchestrator(trip) as orchestrator:
        app.state.orchestrator = orchestrator
        yield


app = FastAPI(lifespan=lifespan)


def _orchestrator(request: Request) -> Orchestrator:
    found: Orchestrator = request.app.state.orchestrator
    return found


Sagas = Annotated[Orchestrator, Depends(_orchestrator)]


class Trip(BaseModel):
    """The input of a trip."""

    city: str


@app.post("/trips", status_code=202)
async def book(
    given: Trip,
    response: Response,
    sagas: Sagas,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> dict[str, str]:
    """Start a saga and answer at once; the saga is durable and runs in the background."""
    trip_id = await sagas.execute_workflow(
        "web_trip", given.model_dump(mode="json"), idempotency_key=idempotency_key
    )
    response.headers["Location"] = f"/trips/{trip_id}"
    return {"id": trip_id}


@app.get("/trips/{trip_id}")
async def show(trip_id: str, sagas: Sagas) -> dict[str, Any]:
    """The progress and the outcome of a trip."""
    saga = await sagas.get_status(trip_id)
    return {name: saga[name] for name in ("state", "current_step", "result", "error")}


@app.exception_handler(InvalidInput)
async def refuse(request: Request, error: InvalidInput) -> JSONResponse:
    """Errors that the caller must fix; the subclass gives the kind."""
    status = 400
    if isinstance(error, UnknownSaga):
        status = 404
    elif isinstance(error, IdempotencyConflict):  # the same key with another body
        status = 422
    return JSONResponse({"detail": str(error)}, status)


@app.exception_handler(NoServer)
async def put_off(request: Request, error: NoServer) -> JSONResponse:
    """Redis is away: no saga was started, or the same key will find it."""
    return JSONResponse({"detail": "try again"}, 503, headers={"Retry-After": "5"})
