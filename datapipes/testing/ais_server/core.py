"""The nodes' sockets and the loop that serves them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from aiohttp import web

from datapipes.testing.ais_server.cluster import Cluster, Node
from datapipes.testing.ais_server.service import Service

__all__ = ["Core"]

LONGEST_LINE = 1 << 16
"""Bytes of a request line or header; a batch's handle or a long name fits."""


class Core:
    """A cluster that listens on 127.0.0.1.

    The sockets are bound when it is made, so that addresses are known before it runs.

    Args:
        cluster: whom to serve.
        port: of the proxy; 0 takes a free one. Targets always take free ones.
    """

    def __init__(self, cluster: Cluster, *, port: int = 0) -> None:
        self.cluster = cluster
        self._sockets = {}
        self._servers: dict[str, tuple[web.Server, asyncio.Server]] = {}
        self._stop: asyncio.Event | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        try:
            for node in cluster.nodes:
                self._sockets[node.id] = bound = _bind(node, port if node.kind == "proxy" else 0)
                node.port = bound.getsockname()[1]
        except OSError:
            self.close()
            raise
        cluster.switch = self.switch

    def close(self) -> None:
        """Closes what is bound and not yet served."""
        for bound in self._sockets.values():
            bound.close()
        self._sockets.clear()

    async def run(self, ready: Callable[[], object]) -> None:
        """Serves until :meth:`stop`; calls ``ready`` as soon as every node answers."""
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            for node in self.cluster.nodes:
                await self._up(node, self._sockets.pop(node.id))
            ready()
            await self._stop.wait()
        finally:
            self.close()
            for node in self.cluster.nodes:
                await self._down(node)

    def stop(self) -> None:
        """Ends :meth:`run`; from any thread."""
        if self.loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self.loop.call_soon_threadsafe(self._stop.set)

    async def switch(self, node: Node, *, down: bool) -> None:
        """Lets a node refuse connections, or listen again at its old port."""
        if down:
            await self._down(node)
        elif node.id not in self._servers:
            await self._up(node, _bind(node, node.port))
        node.is_down = down

    async def _up(self, node: Node, bound: socket.socket) -> None:
        server = web.Server(
            Service(node, self.cluster),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=600,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
        )
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(server, sock=bound, backlog=1024)
        self._servers[node.id] = (server, listening)

    async def _down(self, node: Node) -> None:
        if node.id not in self._servers:
            return
        server, listening = self._servers.pop(node.id)
        listening.close()
        server.pre_shutdown()
        await server.shutdown(0.05)
        await listening.wait_closed()


def _bind(node: Node, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((node.host, port))
    except OSError:
        bound.close()
        raise
    return bound
