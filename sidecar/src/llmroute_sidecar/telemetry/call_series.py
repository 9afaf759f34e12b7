"""The series that a call is counted in beside its status, found once for all calls of one kind: of the same operation,
model and upstream. To look each of them up for each call would cost as much as to answer it from a cache.

Kinds come from the configuration, whose names may change for as long as the process lives: beyond KINDS_MAX of them,
what is new is counted as `other`.
"""

from llmroute_sidecar.snapshot import Upstream
from llmroute_sidecar.telemetry.genai import OTHER, GenAiLabels, GenAiMetrics, operation_of, provider_of
from llmroute_sidecar.telemetry.series import Count, CounterSeries, Row

KINDS_MAX = 1000


class CallSeries:
    """The series of one kind of calls. Each of them is told from its first observation on."""

    __slots__ = (
        "_cost",
        "_estimated",
        "_first_token",
        "_input",
        "_labels",
        "_output",
        "_output_token",
        "_served",
        "_shared",
        "_told",
    )

    def __init__(self, shared: "AllCallSeries", labels: GenAiLabels) -> None:
        self._shared = shared
        self._labels = labels
        self._served: Row | None = None
        self._first_token: Row | None = None
        self._output_token: Row | None = None
        self._input: Row | None = None
        self._output: Row | None = None
        self._told: tuple[Count, Count] | None = None
        self._estimated: tuple[Count, Count] | None = None
        self._cost: Count | None = None

    def ended(self, error: str | None, seconds: float) -> None:
        """A call is over, `seconds` after its head; `error` says what went wrong, in a word of a bounded set."""
        if error is not None:
            self._shared.gen_ai.duration.observe((*self._labels, error), seconds)
            return
        if self._served is None:
            self._served = self._shared.gen_ai.duration.at((*self._labels, ""))
        self._served.observe(seconds)

    def first_token(self, seconds: float) -> None:
        if self._first_token is None:
            self._first_token = self._shared.gen_ai.first_token.at(self._labels)
        self._first_token.observe(seconds)

    def pace(self, seconds: float, count: int) -> None:
        """`count` tokens came within `seconds` of the first content, which is one of them."""
        if count < 2:
            return
        if self._output_token is None:
            self._output_token = self._shared.gen_ai.output_token.at(self._labels)
        self._output_token.observe(seconds / (count - 1))

    def used(self, given: int, made: int, *, estimated: bool) -> None:
        """Tokens in and out. Under the conventions' names stands what an answer told, and nothing else."""
        if estimated:
            if self._estimated is None:
                self._estimated = self._counts("true")
            counts = self._estimated
        else:
            if self._told is None:
                self._told = self._counts("false")
            counts = self._told
            if self._input is None or self._output is None:
                self._input = self._shared.gen_ai.tokens.at((*self._labels, "input"))
                self._output = self._shared.gen_ai.tokens.at((*self._labels, "output"))
            self._input.observe(given)
            self._output.observe(made)
        counts[0].value += given
        counts[1].value += made

    def cost(self, usd: float) -> None:
        if self._cost is None:
            self._cost = self._shared.cost.at((self._labels.model, self._labels.upstream))
        self._cost.value += usd

    def _counts(self, estimated: str) -> tuple[Count, Count]:
        model, upstream, tokens = self._labels.model, self._labels.upstream, self._shared.tokens
        return tokens.at((model, upstream, "input", estimated)), tokens.at((model, upstream, "output", estimated))


class AllCallSeries:
    """Those of every kind."""

    def __init__(self, gen_ai: GenAiMetrics, tokens: CounterSeries, cost: CounterSeries) -> None:
        self.gen_ai = gen_ai
        self.tokens = tokens
        self.cost = cost
        self._kinds: dict[tuple[str, str, str | None], CallSeries] = {}

    def of(self, template: str, model: str, target: Upstream | None) -> CallSeries:
        """Those of calls to `template` (a path's) for `model` (a configured name, or `other`), which `target` served or
        was called for last."""
        key = (template, model, None if target is None else target.id)
        found = self._kinds.get(key)
        if found is None:
            found = self._make(key, template, model, target)
        return found

    def _make(self, key: tuple[str, str, str | None], template: str, model: str, target: Upstream | None) -> CallSeries:
        if len(self._kinds) >= KINDS_MAX:
            key, model, target = (template, OTHER, None), OTHER, None
            if key in self._kinds:
                return self._kinds[key]
        provider = "" if target is None else provider_of(target.url, target.protocol)
        labels = GenAiLabels(operation_of(template), provider, model, "" if target is None else target.name)
        made = self._kinds[key] = CallSeries(self, labels)
        return made
