"""How do tests get a server that also listens on a unix socket?"""

from __future__ import annotations

from multiagents.devserver.server import EmbeddedServer


class SocketServer(EmbeddedServer):
    """An embedded server with a socket in its data directory."""

    @property
    def socket_url(self) -> str:
        return f"unix://{self.data_dir}/s.sock"

    def _options(self) -> list[str]:
        return [*super()._options(), "--unixsocket", f"{self.data_dir}/s.sock"]
