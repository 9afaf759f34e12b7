"""Signs of life of the watches. A watch that hangs tells nobody (kopf#585, kopf#957, kopf#996): its silence does.

Two clocks for each. One stops at nothing but data (a list, an event, a bookmark, a watch that was taken up): its
silence is what people are told, for a watch that is refused learns as little as one that hangs. The other stops at any
answer or failure of a request, and is the liveness probe's: starting the process anew brings back no right that was
taken away and no API server. Signs come from other threads too; each is one assignment.
"""

from collections.abc import Callable, Iterable, Mapping


class SignsOfLife:
    def __init__(self, watches: Iterable[str], clock: Callable[[], float], silence_max: float) -> None:
        self._clock = clock
        self._silence_max = silence_max
        self._moved = dict.fromkeys(watches, clock())
        self._heard = dict(self._moved)

    def heard(self, watch: str) -> None:
        """It has got data."""
        self._heard[watch] = self._moved[watch] = self._clock()

    def moved(self, watch: str) -> None:
        """It has got an answer or a failure, whatever it says."""
        self._moved[watch] = self._clock()

    def silences(self) -> Mapping[str, float]:
        """Seconds since each got data."""
        now = self._clock()
        return {watch: now - last for watch, last in self._heard.items()}

    def remaining(self, watch: str) -> float:
        """Seconds until `watch` will have hung for longer than it can; 0 where it has."""
        return max(0.0, self._moved[watch] + self._silence_max - self._clock())

    def hanging(self) -> list[str]:
        """The watches that have not moved for too long."""
        now = self._clock()
        return [watch for watch, last in self._moved.items() if now - last > self._silence_max]
