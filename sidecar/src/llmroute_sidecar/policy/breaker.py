"""The circuit breaker of one upstream.

Theory of operation.

    state      admit                         SUCCESS     FAILURE, MISCONFIGURED        THROTTLED  NEUTRAL
    CLOSED     yes                           failures=0  failures+1; the last: OPEN    rests      nothing
    OPEN       no; after `reset`: HALF_OPEN  (a result of before it opened: ignored)
    HALF_OPEN  one probe at a time           CLOSED      OPEN                          CLOSED     the slot is free again

A THROTTLED upstream (429) is alive: it does not count as broken, it rests until the time it named, whatever the
state; so a probe that is throttled closes the breaker. MISCONFIGURED (it refuses the gateway's own credential) counts
like a failure and is told apart in the view. Each permit carries the epoch it was given in; a result from an earlier
epoch says nothing of the present and is ignored, so a slow success from before the opening does not close it.
`broke_off` is for an answer that was judged a success at its first content and broke later: it counts as one failure
of a closed breaker.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Literal


class Outcome(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    THROTTLED = "throttled"
    MISCONFIGURED = "misconfigured"
    NEUTRAL = "neutral"
    """The client's mistake or departure."""


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one attempt, to be recorded exactly once."""

    probe: bool
    epoch: int


@dataclass(frozen=True, slots=True)
class Shut:
    """No attempt now. `retry_after` in seconds."""

    retry_after: float
    reason: Literal["open", "probing", "resting"]


@dataclass(frozen=True, slots=True)
class BreakerView:
    state: State
    consecutive_failures: int
    retry_after: float
    """Seconds until an attempt may be made; 0 where one may be made now."""
    misconfigured: bool
    """The upstream's last verdict was that the gateway's credential is no good."""


class Breaker:
    __slots__ = (
        "_epoch",
        "_failures",
        "_max_failures",
        "_misconfigured",
        "_opened_at",
        "_probing",
        "_reset",
        "_rest_until",
        "_state",
    )

    def __init__(self, max_failures: int, reset: float) -> None:
        self._max_failures = max_failures
        self._reset = reset
        self._state = State.CLOSED
        self._epoch = 0
        self._failures = 0
        self._opened_at = 0.0
        self._probing = False
        self._rest_until = float("-inf")
        self._misconfigured = False

    def reconfigure(self, max_failures: int, reset: float) -> None:
        """New numbers from a reload; the state lives on and meets them at the next event."""
        self._max_failures = max_failures
        self._reset = reset

    def admit(self, now: float) -> Permit | Shut:
        if now < self._rest_until:
            return Shut(self._rest_until - now, "resting")
        if self._state is State.CLOSED:
            return Permit(probe=False, epoch=self._epoch)
        if self._state is State.OPEN:
            left = self._opened_at + self._reset - now
            if left > 0:
                return Shut(left, "open")
            self._state = State.HALF_OPEN
            self._probing = False
        if self._probing:
            return Shut(min(1.0, self._reset), "probing")
        self._probing = True
        return Permit(probe=True, epoch=self._epoch)

    def record(self, permit: Permit, outcome: Outcome, now: float, rest_until: float | None = None) -> None:
        """What came of an admitted attempt. `rest_until` goes with THROTTLED (and a failure that named a time)."""
        if rest_until is not None and outcome is Outcome.THROTTLED:
            self._rest_until = max(self._rest_until, rest_until)
        if permit.epoch != self._epoch:
            return
        if outcome is Outcome.NEUTRAL:
            if permit.probe:
                self._probing = False
            return
        self._misconfigured = outcome is Outcome.MISCONFIGURED
        if outcome in (Outcome.SUCCESS, Outcome.THROTTLED):
            if permit.probe:
                self._close()
            elif outcome is Outcome.SUCCESS:
                self._failures = 0
            return
        self._failures += 1
        if permit.probe or self._failures >= self._max_failures:
            self._open(now)

    def broke_off(self, now: float) -> None:
        """An answer that had begun well was broken off by the upstream."""
        if self._state is State.CLOSED:
            self._failures += 1
            if self._failures >= self._max_failures:
                self._open(now)

    def view(self, now: float) -> BreakerView:
        resting = max(0.0, self._rest_until - now)
        opened = max(0.0, self._opened_at + self._reset - now) if self._state is State.OPEN else 0.0
        state = State.HALF_OPEN if self._state is State.OPEN and opened == 0 else self._state
        return BreakerView(state, self._failures, max(resting, opened), self._misconfigured)

    def _open(self, now: float) -> None:
        self._state = State.OPEN
        self._epoch += 1
        self._opened_at = now
        self._probing = False

    def _close(self) -> None:
        self._state = State.CLOSED
        self._epoch += 1
        self._failures = 0
        self._probing = False
