"""Signs of life of the watches. A watch that hangs tells nobody (kopf#585, kopf#957, kopf#996): its silence does.

A sign is any answer or failure of a request: a watch that is refused, or cannot connect, is alive, and starting the
process anew would not help it. Signs come from other threads too; each is one assignment.
"""

from collections.abc import Callable, Iterable, Mapping


class SignsOfLife:
    def __init__(self, watches: Iterable[str], clock: Callable[[], float], silence_max: float) -> None:
        self._clock = clock
        self._silence_max = silence_max
        self._last = dict.fromkeys(watches, clock())

    def seen(self, watch: str) -> None:
        self._last[watch] = self._clock()

    def silences(self) -> Mapping[str, float]:
        """Seconds since the last sign of each."""
        now = self._clock()
        return {watch: now - last for watch, last in self._last.items()}

    def remaining(self, watch: str) -> float:
        """Seconds until `watch` will have been silent for longer than it can; 0 where it has."""
        return max(0.0, self._last[watch] + self._silence_max - self._clock())

    def silent(self) -> list[str]:
        """The watches that have been silent for too long."""
        return [watch for watch, silence in self.silences().items() if silence > self._silence_max]
