"""How do tests reach a server over TLS, which the embedded one lacks?

A proxy in this process speaks TLS with clients and plain TCP with the server.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trustme

HOST = "127.0.0.1"
PIECE = 65536


@dataclass(frozen=True)
class Secured:
    """A server behind TLS. ``ca``: the file of the authority that signed its certificate."""

    port: int
    ca: Path

    def url(self, *options: str, trusted: bool = True) -> str:
        """Its URL; ``trusted``: with the authority's file."""
        ca = [f"ssl_ca_certs={self.ca}"] if trusted else []
        query = "&".join([*ca, *options])
        return f"rediss://{HOST}:{self.port}/0" + (f"?{query}" if query else "")


@contextmanager
def secured(server_port: int, folder: Path) -> Iterator[Secured]:
    """A server's port over TLS, as long as the block lasts."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        proxy = asyncio.run_coroutine_threadsafe(_listen(server_port, context), loop).result(10)
        try:
            yield Secured(proxy.sockets[0].getsockname()[1], ca)
        finally:
            asyncio.run_coroutine_threadsafe(_stop(proxy), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _listen(server_port: int, context: ssl.SSLContext) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, server_port)
        try:
            await asyncio.gather(_carry(reader, back), _carry(there, writer))
        finally:
            for end in (writer, back):
                end.transport.abort()
                with suppress(OSError):
                    await end.wait_closed()

    return await asyncio.start_server(serve, HOST, 0, ssl=context)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward until one side closes, then close the other."""
    with suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _stop(proxy: asyncio.Server) -> None:
    proxy.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
