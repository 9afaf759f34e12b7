"""How soon a sidecar is asked again, and how fast pods are touched. Pure: clock and dice are the caller's."""

from llmroute_operator.controller.backoff import backoff

STEADY_SECONDS = 300.0
"""Between two questions while all is well: for what a pod finds out by itself (a Secret that went, say)."""
BEHIND_SECONDS = (0.5, 20.0)
"""While it serves another revision, least and most: half of the time that it has had so far."""
TROUBLED_SECONDS = (2.0, 60.0)
"""The same, while it serves what it should and tells of trouble."""
UNREACHABLE_MOST_SECONDS = 60.0
AFTER_TOUCH_SECONDS = 0.6
"""A touched pod has its new files after 0.3 to 0.4 s (measured), and its gateway sees that within a tenth of one."""
AFTER_LOST_TOUCH_SECONDS = 20.0
"""After a change, should nothing come of the touch."""
UNTOUCHED_SECONDS = 5.0
"""After a change, for pods that are not touched: kubelet comes by itself within a minute and a half."""


def jittered(seconds: float, dice: float) -> float:
    """Up to half of it off, so that pods asked together spread out."""
    return seconds * (1 - dice / 2)


def ask_again_in(*, is_current: bool, is_whole: bool, for_seconds: float, dice: float) -> float:
    """Seconds, after an answer that has been like this `for_seconds`."""
    if is_current and is_whole:
        return jittered(STEADY_SECONDS, dice)
    least, most = TROUBLED_SECONDS if is_current else BEHIND_SECONDS
    return jittered(min(most, max(least, for_seconds / 2)), dice)


def ask_unreachable_in(failures: int, dice: float) -> float:
    """Seconds, after the `failures`-th time in a row without an answer."""
    return backoff(failures + 2, dice, UNREACHABLE_MOST_SECONDS)


class Pace:
    """At most `per_second` of something, after a first burst of as many."""

    def __init__(self, per_second: float, now: float) -> None:
        self._gap = 1.0 / per_second
        self._burst = 1.0
        self._next = now - self._burst

    def wait(self, now: float) -> float:
        """Seconds until the caller may go ahead; its place is taken by asking."""
        self._next = max(self._next, now - self._burst) + self._gap
        return max(0.0, self._next - now)
