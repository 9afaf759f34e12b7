"""Limits beyond requests, as a call meets them: reserved before it is made, read from its answer, settled at its end.

    serve            admit       wait in line, reserve                            (refused: nothing is counted)
      each attempt   begin       reserve in the upstream's own limits
                     whole, relays  read what the answer says it used
                     end         settle those of the upstream: refunded where nothing was delivered
    Gateway.close    close       settle those of the route, give back its slots   (exactly once for each call)

What counts is `policy.limits.ledger.Ledger`, with `together.py` where other pods count too. What was used is told to
whoever wants to know in `Call.usage`. A client that leaves while an upstream is at work on its call has used the
prompt: it was sent.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from llmroute_sidecar.pipeline.body import RequestFields
from llmroute_sidecar.pipeline.standing import standing_headers
from llmroute_sidecar.pipeline.together import Together, Uncounted
from llmroute_sidecar.pipeline.usage import Pieces, Reading, StreamReader, TailReader, Usage
from llmroute_sidecar.policy.limits.demand import Demand, LearntOutputs
from llmroute_sidecar.policy.limits.ledger import InLine, Lease, Ledger, Moment, PodLease, Use
from llmroute_sidecar.policy.limits.rules import BudgetLimit, Refused, TokenLimit
from llmroute_sidecar.policy.limits.slots import Slot, Ticket
from llmroute_sidecar.policy.plan import DEFAULT_NAME, Candidate
from llmroute_sidecar.snapshot import Upstream
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.upstream.exchange import Headers, Sink

_WRITES_TEXT = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})
"""Where an answer's size says something of its tokens."""
_TELLS_WHEN_ASKED = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Where a stream tells its usage for `stream_options.include_usage` only."""
_NOTHING = Usage(0, 0, estimated=False, cost=0)


class Metering:
    """Makes meters and admits their calls. One for a process."""

    def __init__(self, counter: Ledger, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self.counter = counter
        self.metrics = metrics
        self.learnt = LearntOutputs()
        self._loop = loop
        self.together = Together(self.take, self.now, metrics)

    def now(self) -> Moment:
        return Moment(self._loop.time(), time.time())

    def meter(
        self,
        path: str,
        fields: RequestFields,
        first: Candidate,
        upstream: Upstream,
        uses: list[Use],
        shared: Sequence[Use] = (),
    ) -> "Meter":
        """For a call that is limited by `uses`, and together with other pods by `shared`, and will probably be served
        by `first` at `upstream`."""
        output = 0
        if path in _WRITES_TEXT:
            output = fields.max_output if fields.max_output is not None else self.learnt.expect(first.entry.name)
        demand = Demand(fields.prompt_tokens, output)
        cost = _cost(upstream, first, demand.input, demand.output) or 0
        return Meter(self, path, fields, demand, cost, uses, shared)

    async def admit(self, meter: "Meter") -> Refused | None:
        """Takes what the call needs, after a wait where there is a line for it."""
        taken = await self.take(meter.uses, meter.demand, meter.cost)
        if isinstance(taken, Refused):
            return taken
        meter.lease = taken
        return None

    async def admit_together(self, meter: "Meter", *, fail_closed: bool) -> Refused | Uncounted | None:
        """The same, where other pods count too."""
        taken = await self.together.admit(meter.uses, meter.shared, meter.demand, meter.cost, fail_closed=fail_closed)
        if isinstance(taken, Refused | Uncounted):
            return taken
        meter.lease = taken
        return None

    async def take(self, uses: Sequence[Use], demand: Demand, cost: int) -> PodLease | Refused:
        """Counts in this pod."""
        held: list[Slot] = []
        while True:
            outcome = self.counter.admit(uses, demand, cost, self.now(), held)
            if not isinstance(outcome, InLine):
                return outcome
            try:
                refused = await self._wait(outcome.ticket)
            except BaseException:  # the client has left, most likely
                outcome.ticket.leave()
                _give_back(held)
                raise
            if refused is not None:
                _give_back(held)
                return refused
            held.append(outcome.ticket.slot())

    async def _wait(self, ticket: Ticket) -> Refused | None:
        """Until the ticket is granted, or its time is up."""
        granted = self._loop.create_future()
        ticket.on_grant = _resolver(granted)
        try:
            async with asyncio.timeout(ticket.rule.queue_timeout):
                await granted
        except TimeoutError:
            if not ticket.granted:  # else it came in the last moment
                ticket.leave()
                return ticket.refusal()
        finally:
            ticket.on_grant = None
        return None


def _resolver(future: "asyncio.Future[None]") -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(None)


def _give_back(held: list[Slot]) -> None:
    for slot in held:
        slot.give_back()


@dataclass(slots=True)
class _Attempt:
    """What an attempt under way holds and has learnt."""

    candidate: Candidate
    upstream: Upstream
    lease: Lease | None
    reads_usage: bool
    status: int = 0
    """Of the answer that goes to the client."""
    reading: Reading | None = None
    """What was read of it."""


class Meter:
    """Of one call."""

    __slots__ = (
        "_attempt",
        "_closed",
        "_fields",
        "_metering",
        "_path",
        "_taken",
        "_usage",
        "cost",
        "demand",
        "lease",
        "shared",
        "uses",
    )

    def __init__(
        self,
        metering: Metering,
        path: str,
        fields: RequestFields,
        demand: Demand,
        cost: int,
        uses: list[Use],
        shared: Sequence[Use],
    ) -> None:
        self._metering = metering
        self._path = path
        self._fields = fields
        self.demand = demand
        self.cost = cost
        """Of the demand, at the price of the first candidate."""
        self.uses = uses
        self.shared = shared
        self._taken: Lease | None = None
        """For an attempt that is about to begin, where its upstream is counted by other pods too."""
        self.lease: Lease | None = None
        self._attempt: _Attempt | None = None
        self._usage: Usage | None = None
        self._closed = False

    # -- the upstream's own limits -----------------------------------------------------------------------------------

    def refused_by(self, candidate: Candidate, upstream: Upstream) -> Refused | None:
        """Which of the upstream's own limits is used up. Counts nothing: the breaker may yet say no, and what was not
        tried uses up no limit."""
        counter, now = self._metering.counter, self._metering.now()
        return counter.refusal(_of(upstream), self.demand, self._cost_at(candidate, upstream), now)

    async def take_together(self, candidate: Candidate, upstream: Upstream) -> Refused | Uncounted | None:
        """Takes an attempt's part of limits that other pods count too, and of the upstream's others; `begin` follows,
        or `give_back`."""
        shared = [(limit, upstream.id) for limit in upstream.shared]
        cost = self._cost_at(candidate, upstream)
        together = self._metering.together
        uses = [(limit, upstream.id) for limit in upstream.metered or upstream.limits]
        taken = await together.admit(uses, shared, self.demand, cost, fail_closed=upstream.fail_closed)
        if isinstance(taken, Refused | Uncounted):
            return taken
        self._taken = taken
        return None

    def begin(self, candidate: Candidate, upstream: Upstream) -> None:
        """An attempt begins, in the same breath as `refused_by` found room for it."""
        lease, self._taken = self._taken, None
        if upstream.metered and lease is None:
            now = self._metering.now()
            taken = self._metering.counter.admit(_of(upstream), self.demand, self._cost_at(candidate, upstream), now)
            if isinstance(taken, InLine):
                taken.ticket.leave()  # limits per Upstream have no line
            elif not isinstance(taken, Refused):
                lease = taken
        reads = any(isinstance(limit, TokenLimit | BudgetLimit) for limit, _ in (*self.uses, *self.shared)) or any(
            isinstance(limit, TokenLimit | BudgetLimit) for limit in (*upstream.metered, *upstream.shared)
        )
        self._attempt = _Attempt(candidate, upstream, lease, reads)

    def _cost_at(self, candidate: Candidate, upstream: Upstream) -> int:
        return _cost(upstream, candidate, self.demand.input, self.demand.output) or 0

    def headers(self) -> Headers:
        """What the answer says of the strictest limits."""
        assert self.lease is not None
        return [
            line
            for standing in (self.lease.requests, self.lease.tokens)
            if standing is not None
            for line in standing_headers(standing)
        ]

    @property
    def reads(self) -> bool:
        """Whether it reads what the answer used."""
        return self._attempt is not None and self._attempt.reads_usage

    # -- the answer --------------------------------------------------------------------------------------------------

    @property
    def asks_for_usage(self) -> bool:
        """Whether the stream is to tell its usage, which the client has not asked for."""
        attempt = self._attempt
        return (
            attempt is not None
            and attempt.reads_usage
            and self._fields.stream
            and not self._fields.include_usage
            and self._path in _TELLS_WHEN_ASKED
            and attempt.upstream.protocol == "OpenAI"
        )

    def whole(self, status: int, body: bytes, *, events: bool) -> bytes:
        """An answer is about to go out in one piece: what is to go out of it."""
        reading = self._begin_reading(status)
        if reading is None or status >= 400:
            return body
        if not events:
            reading.answer(body, text=self._path in _WRITES_TEXT)
            return body
        pieces = Pieces()
        reader = StreamReader(pieces, reading, hide=self.asks_for_usage)
        reader.write(body)
        reader.done()
        return b"".join(pieces.written)

    def relays(self, status: int, sink: Sink, *, events: bool) -> StreamReader | TailReader | None:
        """An answer begins to go out piece by piece: through what is returned, where it is to be read."""
        reading = self._begin_reading(status)
        if reading is None:
            return None
        if events:
            return StreamReader(sink, reading, hide=self.asks_for_usage)
        return TailReader(sink, reading, text=self._path in _WRITES_TEXT)

    def _begin_reading(self, status: int) -> Reading | None:
        attempt = self._attempt
        if attempt is None:
            return None
        attempt.status = status
        attempt.reading = Reading()
        return attempt.reading if attempt.reads_usage else None

    # -- the end -----------------------------------------------------------------------------------------------------

    def end(self, *, left: bool) -> None:
        """The attempt is over; `left`: because the client has gone."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        usage = self._used(attempt, left=left)
        if usage is not None and not self._closed:
            self._usage = usage
        if attempt.lease is not None:
            spent = usage or _NOTHING
            attempt.lease.settle(spent.input + spent.output, spent.cost or 0, self._metering.now())
            attempt.lease.release()

    def close(self) -> Usage | None:
        """The call is over, in whatever way: what it used, where that is known or can be estimated. Again, it is what
        it was."""
        if self._closed:
            return self._usage
        self._closed = True
        attempt = self._attempt
        if attempt is not None:  # the answer's end, or the client's departure: `end` comes after
            self._usage = self._used(attempt, left=True)
        usage = self._usage
        lease, self.lease = self.lease, None
        if lease is not None:
            spent = usage or _NOTHING
            lease.settle(spent.input + spent.output, spent.cost or 0, self._metering.now())
            lease.release()
        if usage is not None and attempt is not None and attempt.reads_usage:
            self._tell(attempt, usage)
        return usage

    def _used(self, attempt: _Attempt, *, left: bool) -> Usage | None:
        """What an attempt used; None where nothing of it was delivered, or nobody wants to know."""
        if attempt.status >= 400:
            return _NOTHING  # the client's mistake: nothing was generated
        if not attempt.reads_usage:
            return None
        if attempt.reading is not None:
            usage = attempt.reading.usage(self.demand.input)
        elif left:
            usage = Usage(self.demand.input, 0, estimated=True)
        else:
            return None
        cost = _cost(attempt.upstream, attempt.candidate, usage.input, usage.output)
        return msgspec.structs.replace(usage, cost=cost)

    def _tell(self, attempt: _Attempt, usage: Usage) -> None:
        metering = self._metering
        if usage.estimated:
            metering.metrics.usage_estimated.add()
        elif self._path in _WRITES_TEXT and attempt.status < 400:
            metering.learnt.learn(attempt.candidate.entry.name, usage.output)
        limits = (*self.uses, *self.shared, *_of(attempt.upstream))
        budgets = any(isinstance(limit, BudgetLimit) for limit, _ in limits) or any(
            isinstance(limit, BudgetLimit) for limit in attempt.upstream.shared
        )
        if usage.cost is None and budgets:
            metering.metrics.price_unknown(_label(attempt.candidate))


def _of(upstream: Upstream) -> Sequence[Use]:
    return [(limit, upstream.id) for limit in upstream.metered]


def _cost(upstream: Upstream, candidate: Candidate, given: int, made: int) -> int | None:
    price = upstream.prices.find(candidate.upstream_model)
    return None if price is None else price.cost(given, made)


def _label(candidate: Candidate) -> str:
    """A model as the configuration names it: the upstream's name, or the pattern where clients choose that."""
    name = candidate.entry.name
    if candidate.upstream_model != candidate.model or name == candidate.model:
        return candidate.upstream_model
    return "other" if name == DEFAULT_NAME else name
