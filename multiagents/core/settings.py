"""What can be set from the environment?

Every setting is read once, on first use, from ``MULTIAGENTS_<NAME>``; importing reads nothing.
Celery's own settings stay in celeryconfig.py.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from multiagents.core.exceptions import InvalidInput

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"


class Settings(BaseSettings):
    """The engine's settings; each is the environment variable ``MULTIAGENTS_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="MULTIAGENTS_", frozen=True, extra="ignore")

    redis_url: str = DEFAULT_REDIS_URL
    """Broker, results and state."""
    imports: str = ""
    """Modules with workers and workflows, comma-separated; imported by every worker process."""
    workflows: Path | None = None
    """A folder of JSON or YAML workflow definitions, registered like code."""
    lease_s: Annotated[float, Field(ge=0.5, le=3600)] = 15.0
    """A running step whose worker is silent for this long is taken to be lost."""
    retention_s: Annotated[float, Field(ge=0)] = 7 * 86_400.0
    """A finished saga is kept this long after its last dead letter was closed."""
    max_input_bytes: Annotated[int, Field(ge=2)] = 256 * 1024
    """JSON size of a saga's input."""
    max_result_bytes: Annotated[int, Field(ge=2)] = 1024 * 1024
    """JSON size of one step's result."""
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    """Into how many slots sagas are spread; never change it on a server with sagas."""
    continuation: bool = True
    """Run the next step in the same process when it is the only one and its queue is the same."""
    slice_s: Annotated[float, Field(ge=0)] = 1.0
    """How long one delivery may go on continuing before other sagas get their turn."""
    slice_steps: Annotated[int, Field(ge=1)] = 100
    """How many steps one delivery may run."""
    sweep_s: Annotated[float, Field(gt=0, le=10)] = 1.0
    """The longest pause between two looks at the due set; a due item starts at most this late."""
    lm: str | None = None
    """The language model of @dspy_worker, by DSPy's name: ``gemini/gemini-2.5-flash``."""
    lm_api_base: str | None = None
    """Where ``lm`` is asked instead of at its provider: a gateway, a local server, a stub."""
    redis_server: Path | None = None
    """The server binary that the embedded server starts, instead of the one found."""
    data_dir: Path = Path(".multiagents")
    """Where the embedded server keeps its data."""

    @property
    def lease_ms(self) -> int:
        return round(self.lease_s * 1000)

    @property
    def retention_ms(self) -> int:
        return round(self.retention_s * 1000)

    @property
    def import_names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.imports.split(",") if name.strip())


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process.  Raises InvalidInput naming the variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"MULTIAGENTS_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}"
            for item in error.errors()
        )
        raise InvalidInput(f"bad settings: {wrong}") from error
