"""Ports for servers that have to be told one."""

import random
import socket
from pathlib import Path

_LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has, and that the kernel gives to nobody who asks for any, connections to
    elsewhere included: they are free, too, when a server is started on them a moment later, or again."""
    beyond = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 0
    beyond = beyond if beyond > 2 * _LOWEST else 32_768
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(_LOWEST, beyond)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        if port not in found:
            found.append(port)
    return found
