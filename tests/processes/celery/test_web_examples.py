"""Do a FastAPI and a Flask application start sagas, and tell of them?

Each application runs in a process of its own and answers real requests; the workers are real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from multiagents.devserver.server import EmbeddedServer
from tests.support.processes import Worker, run_script

pytestmark = pytest.mark.processes

DATABASE = 7
FASTAPI = """
import asyncio, httpx, json, os
from examples.web.fastapi_app import app

def ended(trip):
    return trip.json()["state"] in ("completed", "compensated", "failed")

async def talk():
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            said = {}

            async def book(name, city, key=None):
                headers = {"Idempotency-Key": key} if key else {}
                reply = await client.post("/trips", json={"city": city}, headers=headers)
                place = reply.headers.get("location")
                said[name] = [reply.status_code, place, reply.json()]
                for _ in range(600):
                    if not place or ended(trip := await client.get(place)):
                        break
                    await asyncio.sleep(0.05)
                if place:
                    said[name].append(trip.json())

            await book("good", "Oslo")
            await book("bad", "Atlantis")
            await book("first", "Rome", "key-1")
            await book("again", "Rome", "key-1")
            await book("other", "Bern", "key-1")
            await book("long key", "Bern", "k" * 129)
            missing = await client.get("/trips/nowhere")
            wrong = await client.post("/trips", json={})
            said["missing"], said["wrong"] = missing.status_code, wrong.status_code
            return said

print(json.dumps(asyncio.run(talk())))
"""
FLASK = """
import json, os, time
os.environ["REDIS_URL"] = os.environ.pop("MULTIAGENTS_REDIS_URL")
from examples.web.flask_app import create_app

client = create_app().test_client()
said = {}

def ended(trip):
    return trip.json["state"] in ("completed", "compensated", "failed")

def book(name, city, key=None):
    headers = {"Idempotency-Key": key} if key else {}
    reply = client.post("/trips", json={"city": city}, headers=headers)
    place = reply.headers.get("Location")
    said[name] = [reply.status_code, place, reply.json]
    for _ in range(600):
        if not place or ended(trip := client.get(place)):
            break
        time.sleep(0.05)
    if place:
        said[name].append(trip.json)

book("good", "Oslo")
book("bad", "Atlantis")
book("first", "Rome", "key-1")
book("again", "Rome", "key-1")
book("other", "Bern", "key-1")
book("long key", "Bern", "k" * 129)
said["missing"] = client.get("/trips/nowhere").status_code
said["wrong"] = client.post("/trips", data="no JSON").status_code
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def url(server: EmbeddedServer) -> str:
    """A database of this module."""
    return f"{server.url.removesuffix('/0')}/{DATABASE}"


@pytest.fixture(scope="module", autouse=True)
def _workers(url: str) -> Iterator[None]:
    """One for each application, as the pages start them."""
    solo = ("-P", "solo")
    theirs = {"app": "examples.web.flask_worker", "env": {"REDIS_URL": url}}
    with (
        Worker(url, *solo, imports="examples.web.trips") as one,
        Worker(url, *solo, **theirs) as two,
    ):
        one.wait_ready()
        two.wait_ready()
        yield


@pytest.fixture(scope="module", params=[FASTAPI, FLASK], ids=["fastapi", "flask"])
def said(request: pytest.FixtureRequest, url: str) -> dict[str, Any]:
    """What an application has answered."""
    answers: dict[str, Any] = json.loads(run_script(request.param, url).splitlines()[-1])
    answers["is flask"] = request.param == FLASK
    return answers


def test_a_saga_is_started_and_followed(said: dict[str, Any]) -> None:
    """202 with the place where its outcome will be, which is there soon."""
    status, place, body, trip = said["good"]
    assert (status, place) == (202, f"/trips/{body['id']}")
    assert (trip["state"], trip["error"]) == ("completed", None)
    hotel = "Grand Hotel Oslo"
    mail = {"sender": "trips@example.com", "text": hotel}  # by Flask's own settings
    assert trip["result"] == (mail if said["is flask"] else {"hotel": hotel})


def test_a_failure_is_told_with_its_reason(said: dict[str, Any]) -> None:
    """The flight of a trip without a hotel is given back."""
    trip = said["bad"][3]
    assert (trip["state"], trip["error"]["message"]) == ("compensated", "no hotel in Atlantis")


def test_a_repeated_request_starts_nothing(said: dict[str, Any]) -> None:
    """The same key leads to the same trip; with another body it is an error."""
    assert said["again"][:3] == said["first"][:3]
    assert said["other"][0] == 422
    assert "key-1" in said["other"][2]["detail"]


def test_what_is_wrong_is_the_callers(said: dict[str, Any]) -> None:
    """4xx, and never a traceback."""
    assert said["missing"] == 404
    assert said["wrong"] in (415, 422)
    assert said["long key"][0] == 400


@pytest.mark.parametrize("name", ["fastapi_app", "flask_app"])
def test_without_redis_a_request_is_to_be_repeated(name: str) -> None:
    """503 with Retry-After: the key of the second request finds what the first has started."""
    code = f"""
import asyncio, httpx
from examples.web import {name} as module
from multiagents import NoServer
if {name!r} == "flask_app":
    import os
    reply = module.create_app().test_client().get("/trips/some")
else:
    async def ask():
        module.app.state.orchestrator = Away()
        transport = httpx.ASGITransport(module.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.get("/trips/some")
    class Away:
        async def get_status(self, saga_id):
            raise NoServer("away")
    reply = asyncio.run(ask())
print(reply.status_code, reply.headers["Retry-After"])
"""
    assert run_script(code, "redis://127.0.0.1:1/0") == "503 5"


def test_a_flask_application_is_tested_without_a_server() -> None:
    """In eager mode a request runs its saga to the end; async steps have the context, too."""
    code = """
from flask import current_app
from examples.web.flask_app import create_app
from multiagents import WorkflowBuilder, worker

@worker("web_where")
async def where(context):
    return {"app": current_app.config["SENDER"]}

WorkflowBuilder("web_where").add_step("where", where).build().register()
app = create_app(CELERY={"task_always_eager": True}, SENDER="me")
client = app.test_client()
place = client.post("/trips", json={"city": "Oslo"}).headers["Location"]
sagas = app.extensions["sagas"]
print(client.get(place).json["result"], sagas.start_saga.delay("web_where", {}).get())
"""
    found = run_script(code, "redis://127.0.0.1:1/0")
    assert found == "{'sender': 'me', 'text': 'Grand Hotel Oslo'} {'app': 'me'}"
