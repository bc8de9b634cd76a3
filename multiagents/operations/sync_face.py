"""How does a program steer sagas without an event loop?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from multiagents.operations.operation import OPERATIONS
from multiagents.operations.service import SagaService


class OperationRunner(Protocol):
    """Runs operations; `hosting.runtime.Runtime` is one."""

    def call(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Run one of them."""


class Sagas:
    """The sync face: each of `OPERATIONS` as a method that returns its result."""

    def __init__(self, runtime: OperationRunner) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in OPERATIONS:
            raise AttributeError(f"no operation {name!r}; there are: {', '.join(OPERATIONS)}")
        operation = getattr(SagaService, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._runtime.call(name, *args, **kwargs)

        call.__name__, call.__doc__ = name, operation.__doc__
        return call

    def __dir__(self) -> list[str]:
        return list(OPERATIONS)
