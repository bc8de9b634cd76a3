"""What does a worker function receive?

A dict with the user's data alone, under any keys; the engine's own values are attributes.  So a key
called ``step`` or ``results`` is the user's, and ``context.step`` is the engine's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from multiagents.core.entries import Failure
from multiagents.core.exceptions import InvalidInput
from multiagents.core.json_text import encodable
from multiagents.core.settings import get_settings
from multiagents.worker_sdk.validation import to_json

OnHeartbeat = Callable[[float | None, str], None]
OnCheckpoint = Callable[[Any], None]


class Context(dict[str, Any]):
    """The saga's input overlaid with the results of the steps before.

    ``attempt`` counts from 1.  ``idempotency_key`` is the same for every attempt: pass it to
    other systems.  ``results`` holds the results by step name.  ``checkpoint_value`` is the last
    checkpoint of an attempt, None if there is none.  A compensation also has ``step_result`` (None
    if the step returned nothing), ``step_idempotency_key`` and ``error``, the reason for the undo
    (its ``type`` and ``message``).

    ``on_heartbeat`` and ``on_checkpoint`` are the engine's.  Without them, as in a unit test,
    ``Context({...})`` records the values on itself.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        transaction_id: str = "",
        correlation_id: str = "",
        workflow: str = "",
        step: str = "",
        attempt: int = 1,
        idempotency_key: str = "",
        results: Mapping[str, dict[str, Any]] | None = None,
        checkpoint_value: Any = None,
        step_result: dict[str, Any] | None = None,
        step_idempotency_key: str = "",
        error: Failure | None = None,
        on_heartbeat: OnHeartbeat | None = None,
        on_checkpoint: OnCheckpoint | None = None,
    ) -> None:
        super().__init__(data or {})
        self.transaction_id = transaction_id
        self.correlation_id = correlation_id
        self.workflow = workflow
        self.step = step
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self.results = {} if results is None else results
        self.checkpoint_value = checkpoint_value
        self.step_result = step_result
        self.step_idempotency_key = step_idempotency_key
        self.error = error
        self.progress: float | None = None
        self.note = ""
        self.on_heartbeat = on_heartbeat
        self.on_checkpoint = on_checkpoint

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError for a missing attribute, with a hint: the data are keys."""
        if name in self:
            raise AttributeError(f"the context has no attribute {name!r}: write context[{name!r}]")
        raise AttributeError(
            f"the context has no attribute {name!r}, and no key of that name; the saga's data are"
            " keys, as in context['city']"
        )

    def heartbeat(self, progress: float | None = None, note: str = "") -> None:
        """Report that the step is alive, and its progress from 0 to 1, for operators to see.

        Raises InvalidInput for a progress outside 0 to 1.
        """
        if progress is not None and not 0 <= progress <= 1:  # NaN is refused too
            raise InvalidInput(
                f"progress of step {self.step!r} is {progress!r}: expected 0 to 1 (0.4 is 40 %)"
            )
        self.progress = self.progress if progress is None else float(progress)
        note = encodable(note)
        self.note = note or self.note
        if self.on_heartbeat is not None:
            self.on_heartbeat(progress, note)

    def checkpoint(self, value: Any) -> None:
        """Store a value for the next attempt, which gets its JSON form as ``checkpoint_value``.

        Each call replaces the earlier value.  Raises InvalidResult if it cannot be stored.
        """
        limit = get_settings().max_result_bytes
        text = to_json(value, what=f"checkpoint of {self.step!r}", limit=limit)
        self.checkpoint_value = json.loads(text)
        if self.on_checkpoint is not None:
            self.on_checkpoint(self.checkpoint_value)

    def copy(self) -> Context:
        """A shallow copy, attributes included."""
        twin = Context(self)
        twin.__dict__.update(self.__dict__)
        return twin

    __copy__ = copy

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickles and deep copies, which belong to no attempt, so have no engine."""
        return {**self.__dict__, "on_heartbeat": None, "on_checkpoint": None}


def build_data(
    data: Mapping[str, Any], results_in_order: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The input overlaid with results; of two with the same key the later wins."""
    merged = dict(data)
    for result in results_in_order:
        merged.update(result)
    return merged
