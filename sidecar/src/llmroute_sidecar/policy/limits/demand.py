"""How much a call is expected to use, before it is made: what is reserved for it.

The prompt is taken at BYTES_PER_TOKEN, less what is no text (images and sounds in base64, which models count by their
own rules); the answer at what the body allows (`max_tokens` and its like), else at what answers of the model came to
so far. All of it is settled once the answer says what was used, so an estimate need not be right, only not absurd.
"""

from collections.abc import Iterable
from dataclasses import dataclass

BYTES_PER_TOKEN = 4
"""English prose has 4 or more, code and other languages fewer; the body's JSON around it makes up for some of that."""
BINARY_TOKENS = 1000
"""An image, say: OpenAI counts 85 to 1,700 for one, Anthropic up to 1,600."""
_BINARY_MARKS = (b";base64,", b'"data":"', b'"data": "')
FIRST_GUESS = 256
LEAST_OUTPUT = 16
MOST_OUTPUT = 4096
"""Bounds of what is learnt, and what is thought of a model before anything is."""
_WEIGHT = 1 / 8


@dataclass(frozen=True, slots=True)
class Demand:
    """Tokens that a call may use."""

    input: int
    output: int

    @property
    def total(self) -> int:
        return self.input + self.output


def prompt_tokens(body: bytes) -> int:
    """About how many tokens a request's body has in it; at least one."""
    size, binaries = len(body), 0
    for mark in _BINARY_MARKS:
        place = body.find(mark)
        while place >= 0:
            begin = place + len(mark)
            end = body.find(b'"', begin)
            if end < 0:
                break
            if end - begin > BINARY_TOKENS * BYTES_PER_TOKEN:  # a smaller one is counted as text
                size -= end - begin
                binaries += 1
            place = body.find(mark, end)
    return max(1, size // BYTES_PER_TOKEN + binaries * BINARY_TOKENS)


class LearntOutputs:
    """How long answers are, by model as the configuration names it: a moving mean, and how far they stray from it."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}
        """Mean and mean deviation, kept as TCP keeps its round trips (RFC 6298 §2)."""

    def expect(self, model: str) -> int:
        """Tokens that an answer will hardly exceed."""
        seen = self._seen.get(model)
        if seen is None:
            return FIRST_GUESS
        mean, deviation = seen
        return min(MOST_OUTPUT, max(LEAST_OUTPUT, round(mean + 2 * deviation)))

    def learn(self, model: str, output: int) -> None:
        seen = self._seen.get(model)
        if seen is None:
            self._seen[model] = (float(output), output / 2)
            return
        mean, deviation = seen
        deviation += _WEIGHT * 2 * (abs(output - mean) - deviation)
        self._seen[model] = (mean + _WEIGHT * (output - mean), deviation)

    def keep_only(self, models: Iterable[str]) -> None:
        """Forgets the models that are gone."""
        for gone in self._seen.keys() - set(models):
            del self._seen[gone]
