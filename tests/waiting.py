"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


HANGS_AFTER = 120.0
"""Seconds after which what is waited for is taken never to come: it says nothing of how fast a machine is. Each test
ends before its own time limit, saying what it waited for."""
ASKED_FOR = 0.05
"""Of the time that was waited already, how much passes until the condition is looked at again: to ask more often would
take from the machine what is waited for."""
LONGEST_SECONDS = 0.25


def wait_until(condition: Callable[[], T], what: str, seconds: float = HANGS_AFTER, every: float = 0.02) -> T:
    """The first truthy value of `condition`, looked at each `every` seconds, and less often the longer it takes. Fails,
    saying what was waited for, when `seconds` have passed."""
    began = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"waited {seconds:.0f} s for {what}; the last value was {value!r}")
        time.sleep(max(every, min(LONGEST_SECONDS, waited * ASKED_FOR)))
