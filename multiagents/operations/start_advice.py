"""Which command starts a worker in this project?"""

from __future__ import annotations

from collections.abc import Iterable

from multiagents.core.settings import Settings
from multiagents.engine import launches
from multiagents.engine.launches import Launch
from multiagents.storage.client import UNREACHABLE


class StartAdvice:
    """Advises a command, from the launches of earlier workers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def start_command(self, functions: Iterable[str] = ()) -> str:
        """The command that starts a worker with these functions in this project."""
        known = await self.launches()
        imports = self._settings.import_names
        return launches.advice(known, functions=functions, imports=imports)

    async def launches(self) -> list[Launch]:
        """The launches that workers have published; none if the server is away."""
        try:
            return await launches.read()
        except UNREACHABLE:
            return []
