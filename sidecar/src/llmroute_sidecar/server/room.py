"""The memory that request bodies may take together, over all connections.

Sans-IO: counts. Each body is bounded by itself (`ServerLimits.body`); this bounds their sum, so that many clients with
large bodies are told to come back (503 `overloaded`) instead of the kernel ending the process with all of its calls.
Small bodies are not counted: `ServerLimits.connections` bounds them.
"""

COUNTED_FROM_BYTES = 16 * 1024


class Room:
    """Bytes of large bodies, from their first to the end of their call: a retry needs all of it."""

    __slots__ = ("free",)

    def __init__(self, size: int) -> None:
        self.free = size

    def take(self, size: int) -> bool:
        """Whether there was room for so many bytes; then they are taken."""
        if size > self.free:
            return False
        self.free -= size
        return True

    def give_back(self, size: int) -> None:
        self.free += size
