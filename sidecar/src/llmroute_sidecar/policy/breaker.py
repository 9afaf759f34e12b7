"""The circuit breaker of one upstream.

Theory of operation
===================

A breaker gives permits for attempts and hears what came of each. What it hears decides:

    state      admit                          SUCCESS       FAILURE, MISCONFIGURED      THROTTLED   NEUTRAL
    CLOSED     a permit                       failures = 0  failures + 1; the max: OPEN rests       nothing
    OPEN       Shut; after `reset` HALF_OPEN  -             -                           rests       -
    HALF_OPEN  one probe, then Shut           CLOSED        OPEN                        CLOSED,     the probe's slot
                                                                                        rests       is free again

*Permits belong to an epoch.* An epoch ends when the breaker opens, when it closes, and when a probe gives its slot
back. A result from an earlier epoch says nothing about the present and is ignored: a slow success that began before
it opened does not close it, nor does a slow failure open it anew. This is also why nothing is recorded in OPEN (no
permit is given there), and why recording a probe twice does nothing: its first result ended its epoch.

*Outcomes.* FAILURE: the upstream is broken. MISCONFIGURED: it refuses the gateway's own credential (401, 403); that
counts like a failure, since the next attempt would fare no better, and is told apart in the view until a success says
otherwise. NEUTRAL: the client's mistake or departure, which says nothing about the upstream. THROTTLED (429): not
broken; it rests until the time it named, in any state and from any epoch, since the time is the upstream's word about
the future. A closed breaker's failures stand meanwhile: 429 in between 500s is no recovery. A probe that is throttled
closes the breaker: OPEN means that the upstream does not answer, and it did; the rest keeps traffic off as it asks.

*Opening counts consecutive failures*: attempts with no success between, in order of their results, not their starts.

*An answer may break off after it was recorded as a success*, at its first content; `broke_off` counts that as one
failure of a closed breaker, unless the answer began before the breaker last opened.

*A breaker may be opened from outside* (`open_for`): another gateway's has opened. Only a closed one heeds that; the
others have their own word on it. `on_open` is called back when it opens by its own doing.

Times are the caller's clock, in seconds. Every permit is to be recorded exactly once, whatever happens: an unrecorded
probe would hold the only slot for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Literal, assert_never

PROBE_WAIT = 1.0
"""Seconds after which to ask again while a probe is out, at most: when it ends nobody knows."""


class Outcome(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    THROTTLED = "throttled"
    MISCONFIGURED = "misconfigured"
    """The upstream refuses the gateway's own credential."""
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
    """No attempt now."""

    retry_after: float
    """Seconds until it is worth asking again."""
    reason: Literal["open", "probing", "resting"]


@dataclass(frozen=True, slots=True)
class BreakerView:
    state: State
    """HALF_OPEN as soon as a probe would be let through."""
    consecutive_failures: int
    retry_after: float
    """Seconds until an attempt may be made; 0 where one may be made now. A closed breaker's is its rest."""
    misconfigured: bool
    """The upstream has refused the gateway's credential, and has not served since."""


class Breaker:
    __slots__ = (
        "_closed_permit",
        "_epoch",
        "_failures",
        "_max_failures",
        "_misconfigured",
        "_opened_at",
        "_opened_epoch",
        "_probing",
        "_reset",
        "_rest_until",
        "_state",
        "on_open",
    )

    def __init__(self, max_failures: int, reset: float) -> None:
        self._max_failures = max_failures
        self._reset = reset
        self._state = State.CLOSED
        self._failures = 0
        self._epoch = 0
        self._closed_permit = Permit(probe=False, epoch=0)
        """A closed breaker's permits are all alike: one object serves an epoch."""
        self._opened_at = 0.0
        self._opened_epoch = 0
        self._probing = False
        self._rest_until = float("-inf")
        self._misconfigured = False
        self.on_open: Callable[[float], None] | None = None
        """Given for how long it stays open, in seconds; must not raise or call in."""

    def reconfigure(self, max_failures: int, reset: float) -> None:
        """New numbers from a reload. The state lives on: a lower maximum is met at the next failure, a new reset
        counts from when the breaker opened."""
        self._max_failures = max_failures
        self._reset = reset

    def admit(self, now: float) -> Permit | Shut:
        """A permit for one attempt, or why and for how long there is none."""
        rest = self._rest_until - now
        if self._state is State.CLOSED:
            return self._closed_permit if rest <= 0 else Shut(rest, "resting")
        left = self._opened_at + self._reset - now if self._state is State.OPEN else 0.0
        if rest > 0 and rest >= left:
            return Shut(rest, "resting")
        if left > 0:
            return Shut(left, "open")
        if self._probing:
            return Shut(min(PROBE_WAIT, self._reset), "probing")
        self._state = State.HALF_OPEN
        self._probing = True
        return Permit(probe=True, epoch=self._epoch)

    def admits(self, now: float) -> bool:
        """Whether `admit` would give a permit. Changes nothing."""
        if self._rest_until > now:
            return False
        if self._state is State.CLOSED:
            return True
        return not self._probing and (self._state is State.HALF_OPEN or now >= self._opened_at + self._reset)

    def record(self, permit: Permit, outcome: Outcome, now: float, rest_until: float | None = None) -> None:
        """What came of an attempt. `rest_until` goes with THROTTLED, and is heeded with no other outcome."""
        if outcome is Outcome.THROTTLED and rest_until is not None and rest_until > self._rest_until:
            self._rest_until = rest_until
        if permit.epoch != self._epoch:
            return
        match outcome:
            case Outcome.SUCCESS:
                self._misconfigured = False
                self._failures = 0
                if permit.probe:
                    self._close()
            case Outcome.FAILURE | Outcome.MISCONFIGURED:
                if outcome is Outcome.MISCONFIGURED:
                    self._misconfigured = True
                self._failures += 1
                if permit.probe or self._failures >= self._max_failures:
                    self._open(now)
            case Outcome.THROTTLED:
                if permit.probe:
                    self._failures = 0
                    self._close()
            case Outcome.NEUTRAL:
                if permit.probe:
                    self._probing = False
                    self._epoch += 1
            case _:
                assert_never(outcome)

    def broke_off(self, now: float, permit: Permit | None = None) -> None:
        """An answer that was recorded as a success has been broken off by the upstream. With its `permit`, one that
        began before the breaker last opened is ignored."""
        if self._state is not State.CLOSED or (permit is not None and permit.epoch < self._opened_epoch):
            return
        self._failures += 1
        if self._failures >= self._max_failures:
            self._open(now)

    def open_for(self, seconds: float, now: float) -> None:
        """Opens a closed breaker for `seconds`, at most as long as it would stay open itself."""
        if self._state is State.CLOSED and seconds > 0:
            self._opened(now - max(0.0, self._reset - seconds))

    def view(self, now: float) -> BreakerView:
        """The breaker as people see it. Changes nothing."""
        state = self._state
        wait = max(0.0, self._rest_until - now)
        if state is State.OPEN:
            left = self._opened_at + self._reset - now
            wait = max(wait, left)
            if left <= 0:
                state = State.HALF_OPEN
        elif self._probing:
            wait = max(wait, min(PROBE_WAIT, self._reset))
        return BreakerView(state, self._failures, wait, self._misconfigured)

    def _open(self, now: float) -> None:
        self._opened(now)
        if self.on_open is not None:
            self.on_open(self._reset)

    def _opened(self, at: float) -> None:
        self._state = State.OPEN
        self._opened_at = at
        self._probing = False
        self._epoch += 1
        self._opened_epoch = self._epoch

    def _close(self) -> None:
        self._state = State.CLOSED
        self._probing = False
        self._epoch += 1
        self._closed_permit = Permit(probe=False, epoch=self._epoch)
