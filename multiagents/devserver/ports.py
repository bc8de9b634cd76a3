"""Which port of this machine can a server listen on?"""

from __future__ import annotations

import errno
import socket

from multiagents.core.exceptions import NoServer

HOST = "127.0.0.1"


class PortTaken(NoServer):
    """Another program listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is taken; choose another, or 0 for a free one")
        self.port = port

    def __reduce__(self) -> tuple[type[PortTaken], tuple[int]]:
        return type(self), (self.port,)


def refuse_taken(port: int) -> None:
    """Raise PortTaken for a port on which a program listens."""
    with socket.socket() as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(port) from error


def free_port() -> int:
    """A port on which no program listens now."""
    with socket.socket() as probe_socket:
        probe_socket.bind((HOST, 0))
        return int(probe_socket.getsockname()[1])
