"""Which events do subscribers receive while a saga runs?

An event is a frozen value.  A subscriber may receive it more than once, and recognises a
repetition by its ``event_id``.  Every event carries its saga (``transaction_id``) and its trace
(``correlation_id``, by default the saga itself).

Events only inform: the log alone determines a saga (`core.entries`).  No I/O; the only clock is
the default of ``timestamp``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticSerializationError

from multiagents.core.exceptions import InvalidInput
from multiagents.core.ids import fresh_id
from multiagents.core.states import SagaState
from multiagents.core.states import WorkflowState as WorkflowState

EventType = Literal["command", "result", "error", "compensation", "status"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _utc(value: object) -> str:
    """``value`` (ISO 8601 or a datetime, with a zone) as ISO 8601 in UTC."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError("has no time zone; expected ISO 8601 with one, such as ...T12:00:00+00:00")
    return moment.astimezone(UTC).isoformat()


class BaseEvent(BaseModel):
    """The fields of every event.  Unknown fields are ignored: a newer process may send them."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    event_type: EventType
    transaction_id: Annotated[str, Field(min_length=1)]
    correlation_id: str = Field(default_factory=lambda given: given.get("transaction_id", ""))
    timestamp: Annotated[str, BeforeValidator(_utc)] = Field(default_factory=_now)
    """ISO 8601 in UTC; a time in another zone is converted."""
    event_id: str = Field(default_factory=fresh_id)

    @property
    def stream(self) -> str:
        """The stream of the bus for the event: one for each type."""
        return self.event_type

    @property
    def occurred_at(self) -> datetime:
        """``timestamp`` as a datetime in UTC."""
        return datetime.fromisoformat(self.timestamp)

    def to_json(self) -> str:
        """The event as JSON for `parse_event`.  Raises InvalidInput if a value is not JSON."""
        try:
            return self.model_dump_json()
        except PydanticSerializationError as error:
            raise InvalidInput(
                f"{self.event_type} event of saga {self.transaction_id} is not JSON: {error}; "
                "expected only dicts with string keys, lists, strings, numbers, booleans and None"
            ) from error


class _Executor(Protocol):
    def execute(self, context: dict[str, Any], /) -> Awaitable[dict[str, Any]]: ...


class _Workers(Protocol):
    def get_worker(self, name: str, /) -> _Executor: ...


class CommandEvent(BaseEvent):
    """A worker starts an attempt of a step."""

    event_type: Literal["command"] = "command"
    worker_name: str
    step_name: str | None = None
    context: dict[str, Any] = Field(default_factory=dict)
    retry_count: Annotated[int, Field(ge=0)] = 0
    """The number of earlier attempts."""

    def execute_via(self, workers: _Workers) -> Awaitable[dict[str, Any]]:
        """Run the named worker here; await the answer for its result."""
        return workers.get_worker(self.worker_name).execute(self.context)


class ResultEvent(BaseEvent):
    """A worker has returned."""

    event_type: Literal["result"] = "result"
    worker_name: str
    step_name: str | None = None
    result: dict[str, Any] = Field(default_factory=dict)
    success: bool = True


class ErrorEvent(BaseEvent):
    """An attempt of a worker has failed."""

    event_type: Literal["error"] = "error"
    worker_name: str
    step_name: str | None = None
    error: str
    retry_count: Annotated[int, Field(ge=0)] = 0


class CompensationEvent(BaseEvent):
    """A worker starts to undo a step."""

    event_type: Literal["compensation"] = "compensation"
    worker_name: str
    step_name: str | None = None
    context: dict[str, Any] = Field(default_factory=dict)


class StatusEvent(BaseEvent):
    """A saga has reached a state."""

    event_type: Literal["status"] = "status"
    state: SagaState
    current_step: str | None = None
    step_results: dict[str, Any] = Field(default_factory=dict)


Event = CommandEvent | ResultEvent | ErrorEvent | CompensationEvent | StatusEvent

_EVENT: TypeAdapter[Event] = TypeAdapter(
    Annotated[Event, Field(discriminator="event_type")],
    config=ConfigDict(hide_input_in_errors=True),
)


def parse_event(data: str | bytes | Mapping[str, Any]) -> Event:
    """The event that ``data`` (JSON or its dict) describes.

    Raises InvalidInput naming each wrong field; the message repeats none of the values.
    """
    try:
        if isinstance(data, str | bytes):
            return _EVENT.validate_json(data)
        return _EVENT.validate_python(dict(data))
    except ValidationError as error:
        raise InvalidInput(f"not an event: {_mistakes(error)}") from None


def _mistakes(error: ValidationError) -> str:
    """Each mistake with its place, without the values, which may be secret."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {_say(item['type'], item['msg'])}".removeprefix(": ")
        for item in error.errors(include_input=False, include_url=False)
    )


def _say(kind: str, message: str) -> str:
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return f"unknown event_type; known: {', '.join(EVENT_TYPES)}"
    return message
