"""One listening port: its sockets, its connections, and how both are let go. What is served there is its handler's."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from llmroute_sidecar.policy.web_pages import LocalHosts, is_loopback
from llmroute_sidecar.server.connection import Connection, Handler
from llmroute_sidecar.server.head import ServerLimits
from llmroute_sidecar.server.room import Room

_BACKLOG = 2048


class Port:
    """`local_hosts` are the names that are answered to where it listens on loopback."""

    def __init__(
        self, handler: Handler, limits: ServerLimits, loop: asyncio.AbstractEventLoop, local_hosts: LocalHosts
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._loop = loop
        self._local_hosts = local_hosts
        self._room = Room(limits.bodies)
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []

    async def listen(self, hosts: Sequence[str], port: int) -> int:
        """Opens the same port on each of `hosts` and returns its number (of use with port 0). Raises OSError."""
        sockets = _listen_on_all(hosts, port)
        number: int = sockets[0].getsockname()[1]
        for opened in sockets:
            local = self._local_hosts if is_loopback(opened.getsockname()[0]) else None
            accept = cast("Callable[[], asyncio.Protocol]", partial(self._accept, local))
            self._servers.append(await self._loop.create_server(accept, sock=opened, backlog=_BACKLOG))
        return number

    def _accept(self, local_hosts: LocalHosts | None) -> Connection:
        return Connection(self._handler, self._limits, self._loop, self._connections, self._room, local_hosts)

    def close_idle(self) -> None:
        """Connections without a request are closed; those with one are closed after their answer."""
        for connection in list(self._connections):
            connection.drain()

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    @property
    def unsent(self) -> bool:
        """Whether a last answer is still on its way to a client."""
        return any(connection.unsent for connection in self._connections)

    def shut(self) -> None:
        """No more connections; what is still open is cut."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.cut()


def _listen_on_all(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """The same port on each of `hosts`; one that is named twice is opened once. Raises OSError."""
    opened: list[socket.socket] = []
    try:
        for host in dict.fromkeys(hosts):
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                # One that the system chose for the first is asked for on the others.
                number = port or (opened[0].getsockname()[1] if opened else 0)
                one = socket.create_server((address[0], number, *address[2:]), family=family, backlog=_BACKLOG)
                one.setblocking(False)
                opened.append(one)
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened
