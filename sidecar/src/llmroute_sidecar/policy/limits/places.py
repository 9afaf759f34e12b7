"""Keys of a rule and what is counted for each, bounded in number.

Keys are bounded, since a client may ask for any model name and each would be a key: MAX_KEYS for each rule. They
stand in order of their last use, so the first is always the one that goes idle (empty) first; each new key drops up to
two idle ones before it takes a place. Only what is counted makes a key. Where no place is left, new keys share one
overflow window with the rule's numbers: together they get what one of them would have had alone.

The overflow window must not be a way to twice the limit: a key may have used it up before a place became free. So
while it holds anything, a key that takes a place inherits its whole count, as one slot that leaves when the overflow
window's last one does. No key can be kept out for longer than the window by that, as nothing is added to the overflow
window while places are free.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

MAX_KEYS = 10_000


class Window(Protocol):
    """What is counted for one key, over a sliding window of `length` seconds."""

    count: int

    def expire(self, length: float, now: float) -> None:
        """Lets go of what is older than the window."""
        ...

    def idle(self, length: float, now: float) -> bool:
        """Whether all of it is older than the window."""
        ...

    def inherit(self, other: Self) -> None:
        """Takes all that `other` holds as if it were its own, in one slot. Only for an empty window."""
        ...


W = TypeVar("W", bound=Window)


class Places(Generic[W]):
    """The windows of one rule, by key, the longest unused first."""

    __slots__ = ("_make", "overflow", "windows")

    def __init__(self, make: Callable[[], W]) -> None:
        self._make = make
        self.windows: OrderedDict[str, W] = OrderedDict()
        self.overflow = make()

    def newcomer(self, length: float, now: float) -> W:
        """A window for a key that has none: the overflow window, or one that takes its place once it has counted."""
        windows = self.windows
        for _ in range(2):  # one more than can be added, so that idle keys do not pile up
            if not windows or not next(iter(windows.values())).idle(length, now):
                break
            windows.popitem(last=False)
        overflow = self.overflow
        overflow.expire(length, now)
        if len(windows) >= MAX_KEYS:
            return overflow
        window = self._make()
        if overflow.count:
            window.inherit(overflow)
        return window

    def used(self, key: str, window: W) -> None:
        """Something was counted in `window`, which stands for `key`."""
        windows = self.windows
        if key in windows:
            windows.move_to_end(key)
        elif window is not self.overflow:
            windows[key] = window
