"""The attempt engine: tries a plan's candidates in order until one serves. One engine for every endpoint, streamed or
not.

A call is in one of two phases. Before the point of no return nothing has gone to the client, and any failure moves on
to the next try; it is passed at the first content event of a stream, with the first bytes of sound, or when a plain
answer is complete (or larger than is held back). After it nothing is retried: what breaks then ends the answer visibly
(`_relay`).

What an answer means:

    upstream                        breaker         then
    2xx, 400/404/409/413/422…       success/neutral it is the client's answer, as it is
    429                             throttled       rests for Retry-After; next candidate
    401, 403                        misconfigured   the gateway's own credential; next candidate
    3xx, 5xx, 408, timeout, broken  failure         retried as the model says, then the next candidate
    no place in the pool            neutral         it says nothing about the upstream; next candidate
    client gone                     neutral         the connection is closed

A retry is a further try at the same target; it is made while the upstream's retry budget lasts (retry_budget.py) and
after a pause that fits into the call's deadline: the back-off, or what the upstream asked for. Where a model is kept
alive (keep_alive.py), the point of no return is at the latest where its stream is begun without the upstream's word.

The client's departure cancels the task, wherever it waits: every path out of `_attempt` ends the exchange and the
permit.
"""

import asyncio
import random
import time
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from llmroute_sidecar.pipeline.body import RequestFields, with_usage_asked_for
from llmroute_sidecar.pipeline.call import Call, Reply
from llmroute_sidecar.pipeline.errors import AttemptRecord, error_as_event, stream_error
from llmroute_sidecar.pipeline.events import Beginning, BeginningScan, WholeEvents
from llmroute_sidecar.pipeline.glimpse import BEGINNING_BYTES, priced, usage_told
from llmroute_sidecar.pipeline.headers import (
    answer_headers,
    content_length,
    header_map,
    ids_sent_on,
    request_headers,
)
from llmroute_sidecar.pipeline.keep_alive import KeepAlive
from llmroute_sidecar.pipeline.together import Uncounted
from llmroute_sidecar.pipeline.trace import trace_attempt, trace_attempt_end
from llmroute_sidecar.policy.breaker import Outcome, Permit, Shut
from llmroute_sidecar.policy.limits import Limiter, Refused
from llmroute_sidecar.policy.plan import Candidate, Plan, in_turn
from llmroute_sidecar.policy.retry import pause_before_retry, retry_after
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.upstream.exchange import Exchange, Headers, OutgoingRequest, Sink, UpstreamBroken
from llmroute_sidecar.upstream.registry import LiveUpstream, Serving

CALL_SECONDS = 600.0
"""All attempts of one call together, unless a candidate's own request timeout is longer."""
DEAD_UNSEEN_SECONDS = 1.0
"""Until a connection that was dead before it was used again has said so: a way to the upstream and back, amply."""
HOLD_MAX_BYTES = 1024 * 1024
"""A plain answer up to this size is held back until it is whole, so that a broken one can still fall back."""
CLIENT_LEFT = "client_left"
"""The reason of an attempt that nobody waits for any more."""
THROTTLED_REST_SECONDS = 5.0
"""How long an upstream rests that answered 429 without saying for how long."""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No candidate served."""

    tried: bool
    """False: none was even called (open breakers, rests, limits)."""
    throttled: bool
    """Nothing else went wrong than that upstreams asked for a pause: after it the same call may well succeed."""
    retry_after: float | None
    limited: Refused | None
    uncounted: bool
    """A candidate was passed over as its limits could not be counted."""


class _Failed(Exception):
    """An attempt that came to nothing before the point of no return."""

    def __init__(self, outcome: Outcome, reason: str, status: int | None = None, rest: float | None = None) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.status = status
        self.rest = rest


class _BrokenOff(Exception):
    """The answer broke off after the point of no return; the client has been told."""


class AttemptEngine:
    def __init__(self, limiter: Limiter, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self._limiter = limiter
        self._metrics = metrics
        self._loop = loop
        self._random = random.Random()  # noqa: S311 - jitter
        self._now = loop.time

    def serve(
        self, call: Call, fields: RequestFields, plan: Plan, serving: Serving, reply: Reply
    ) -> Coroutine[None, None, GaveUp | None]:
        """Serves `call` by the first candidate that can; None once an answer (or its visible end) has gone out."""
        asked = plan.candidates[0].entry.keep_alive if fields.stream else None
        if asked is None:  # handed on as it is: a frame more would cost every request
            return self._try_each(call, fields, plan, serving, reply, None)
        keep_alive = KeepAlive(call, reply, self._loop, *asked)
        return self._try_each_kept_alive(call, fields, plan, serving, reply, keep_alive)

    async def _try_each_kept_alive(
        self, call: Call, fields: RequestFields, plan: Plan, serving: Serving, reply: Reply, keep_alive: KeepAlive
    ) -> GaveUp | None:
        try:
            return await self._try_each(call, fields, plan, serving, reply, keep_alive)
        finally:
            keep_alive.stop()

    async def _try_each(
        self,
        call: Call,
        fields: RequestFields,
        plan: Plan,
        serving: Serving,
        reply: Reply,
        keep_alive: KeepAlive | None,
    ) -> GaveUp | None:
        upstreams = serving.live
        longest = CALL_SECONDS
        for candidate in plan.candidates:
            longest = max(longest, upstreams[candidate.upstream].config.request_timeout)
        deadline = self._now() + longest
        chain = _Chain()
        candidates: Iterable[Candidate] = plan.candidates
        if plan.parts:
            able = partial(self._able, call, upstreams)
            candidates = in_turn(plan, serving.turns, partial(_header, call), able)
        for candidate in candidates:
            upstream = upstreams[candidate.upstream]
            for attempt in range(1, candidate.entry.retry_attempts + 1):
                permit = self._admit(call, candidate, upstream, attempt, chain)
                if permit is None:
                    break
                if upstream.config.shared and not await self._counted(call, candidate, upstream, permit, chain):
                    break
                try:
                    await self._attempt(call, fields, candidate, upstream, permit, reply, deadline, keep_alive)
                except _Failed as failed:
                    self._note(call, candidate, upstream, failed.reason, failed.status)
                    if keep_alive is not None and keep_alive.begun:
                        self._end_begun(reply, stream_error(call.path))
                        return None
                    pause = self._pause(candidate, upstream, attempt, chain, failed, deadline)
                    if pause is None:
                        break
                    await asyncio.sleep(pause)
                    call.waited += pause
                except _BrokenOff:
                    return None
                else:
                    return None
            if self._now() >= deadline:
                break
        return GaveUp(chain.tried, chain.throttled, chain.soonest, chain.limited, chain.uncounted)

    def _admit(
        self, call: Call, candidate: Candidate, upstream: LiveUpstream, attempt: int, chain: "_Chain"
    ) -> Permit | None:
        """Leave for one attempt; None where there is to be none, which is noted."""
        if upstream.caller is None:
            chain.tried, chain.throttled = True, False  # broken for good, not for a while: told as a failure
            self._note(call, candidate, upstream, upstream.unavailable or "unavailable")
            return None
        refused = self._over_limit(call, candidate, upstream)
        if refused is not None:
            chain.limited = refused
            chain.soonest = _sooner(chain.soonest, refused.retry_after)
            self._note(call, candidate, upstream, "limit_reached")
            return None
        again = attempt == 1 and (candidate.upstream, candidate.upstream_model) in chain.failed
        if again and not self._may_retry(upstream):
            self._note(call, candidate, upstream, "retry_budget_spent")
            return None
        permit = upstream.breaker.admit(self._now())
        if isinstance(permit, Shut):
            self._metrics.circuit_open(upstream.config.name)
            chain.soonest = _sooner(chain.soonest, permit.retry_after)
            self._note(call, candidate, upstream, _SHUT_REASON[permit.reason])
            return None
        if attempt == 1 and not again:
            upstream.retries.first_try()
        if not upstream.config.shared:  # else it is counted first
            self._begin(call, candidate, upstream, chain)
        return permit

    def _begin(self, call: Call, candidate: Candidate, upstream: LiveUpstream, chain: "_Chain") -> None:
        self._count(call, candidate, upstream)
        chain.tried = True
        call.target, call.target_model = upstream.config, candidate.upstream_model
        call.tries += 1

    async def _counted(
        self, call: Call, candidate: Candidate, upstream: LiveUpstream, permit: Permit, chain: "_Chain"
    ) -> bool:
        """Counts an attempt in limits of its upstream that other pods count too; False where they have no room, or
        cannot be counted, which is noted."""
        assert call.meter is not None
        refused: Refused | Uncounted | None = None
        counted = False
        try:
            refused = await call.meter.take_together(candidate, upstream.config)
            counted = refused is None
        finally:
            if not counted:
                upstream.breaker.record(permit, Outcome.NEUTRAL, self._now())
        if refused is None:
            self._begin(call, candidate, upstream, chain)
            return True
        chain.soonest = _sooner(chain.soonest, refused.retry_after)
        if isinstance(refused, Uncounted):
            chain.uncounted = True
            self._note(call, candidate, upstream, "limits_unavailable")
        else:
            chain.limited = refused
            self._note(call, candidate, upstream, "limit_reached")
        return False

    def _pause(
        self,
        candidate: Candidate,
        upstream: LiveUpstream,
        attempt: int,
        chain: "_Chain",
        failed: "_Failed",
        deadline: float,
    ) -> float | None:
        """Seconds until the same target is tried again, for which its budget has paid; None where it is not."""
        chain.throttled = chain.throttled and failed.outcome is Outcome.THROTTLED
        if failed.rest is not None:
            chain.soonest = _sooner(chain.soonest, failed.rest)
        chain.failed.append((candidate.upstream, candidate.upstream_model))
        entry = candidate.entry
        if failed.outcome is not Outcome.FAILURE or attempt == entry.retry_attempts:
            return None
        pause = pause_before_retry(attempt, entry.retry_backoff, self._random.random(), failed.rest)
        if pause is None or self._now() + pause >= deadline or not self._may_retry(upstream):
            return None
        return pause

    def _may_retry(self, upstream: LiveUpstream) -> bool:
        if upstream.retries.take():
            return True
        self._metrics.retry_refused(upstream.config.name)
        return False

    def _able(self, call: Call, upstreams: Mapping[str, LiveUpstream], candidate: Candidate) -> bool:
        """Whether an attempt could be made now. Changes nothing."""
        upstream = upstreams[candidate.upstream]
        return (
            upstream.caller is not None
            and upstream.breaker.admits(self._now())
            and self._over_limit(call, candidate, upstream) is None
        )

    def _over_limit(self, call: Call, candidate: Candidate, upstream: LiveUpstream) -> Refused | None:
        """Which of the upstream's own limits is used up, that with the longest wait. Counts nothing: the breaker may
        yet say no, and what was not tried uses up no limit."""
        if call.meter is not None and upstream.config.metered:
            return call.meter.refused_by(candidate, upstream.config)
        longest: Refused | None = None
        for limit in upstream.config.limits:
            refused = self._limiter.peek(limit, upstream.config.id, self._now())
            if refused is not None and (longest is None or refused.retry_after > longest.retry_after):
                longest = refused
        return longest

    def _count(self, call: Call, candidate: Candidate, upstream: LiveUpstream) -> None:
        if call.meter is not None:
            call.meter.begin(candidate, upstream.config)
        if upstream.config.limits and not upstream.config.metered and not upstream.config.shared:
            self._limiter.admit([(limit, upstream.config.id) for limit in upstream.config.limits], self._now())

    def _note(
        self, call: Call, candidate: Candidate, upstream: LiveUpstream, reason: str, status: int | None = None
    ) -> None:
        if reason != "served":  # what comes of that one is known at its end
            self._metrics.came_of(upstream.config.name, reason)
        call.attempts.append(AttemptRecord(candidate.model, upstream.config.name, reason, status))

    async def _attempt(
        self,
        call: Call,
        fields: RequestFields,
        candidate: Candidate,
        upstream: LiveUpstream,
        permit: Permit,
        reply: Reply,
        deadline: float,
        keep_alive: KeepAlive | None,
    ) -> None:
        attempt = _Attempt(self._now())
        if call.trace is not None:
            trace_attempt(call, candidate, upstream.config)
        if keep_alive is not None:
            keep_alive.watch(candidate.model if candidate.is_fallback else None)
        try:
            deadline = min(deadline, attempt.began + upstream.config.request_timeout)
            exchange = await self._answered(call, fields, candidate, upstream, deadline)
            attempt.exchange = exchange
            attempt.status = status = exchange.status
            _judge_status(exchange)
            await self._hold(exchange, fields, upstream, attempt.began, deadline)
            if exchange.complete:
                call.wait_ends()
            # The verdict falls here, not at the end: a probe that streams for minutes must not keep others waiting.
            outcome = Outcome.NEUTRAL if 400 <= status < 500 else Outcome.SUCCESS
            upstream.breaker.record(permit, outcome, self._now())
            attempt.judged = True
            self._serves(call, candidate, upstream)
            await self._relay(call, exchange, upstream, reply, deadline, keep_alive)
            exchange.release()
            attempt.exchange = None
        except _Failed as failed:
            attempt.failed(failed.outcome, failed.reason, failed.rest)
            raise
        except UpstreamBroken as broken:
            outcome = Outcome.NEUTRAL if broken.reason == "pool_timeout" else Outcome.FAILURE
            attempt.failed(outcome, broken.reason, None)
            raise _Failed(outcome, broken.reason, attempt.status) from None
        except _BrokenOff:
            upstream.breaker.broke_off(self._now(), permit)
            attempt.failure = call.attempts[-1].reason
            raise
        except asyncio.CancelledError:
            attempt.left, attempt.failure = True, CLIENT_LEFT
            raise
        finally:
            self._over(call, upstream, permit, attempt, keep_alive)

    def _over(
        self, call: Call, upstream: LiveUpstream, permit: Permit, attempt: "_Attempt", keep_alive: KeepAlive | None
    ) -> None:
        """An attempt is over, whichever way. Apart from `_attempt`: mypyc reads a variable in a `finally` as what it is
        where all went well."""
        now = self._now()
        if keep_alive is not None:
            keep_alive.stop()
        if attempt.exchange is not None:
            attempt.exchange.abort()
        if not attempt.judged:
            rest = attempt.rest
            upstream.breaker.record(permit, attempt.outcome, now, None if rest is None else now + rest)
        if call.meter is not None:
            call.meter.end(left=attempt.left)
        call.wait_ends()
        if attempt.judged or attempt.left:
            self._metrics.came_of(upstream.config.name, CLIENT_LEFT if attempt.left else call.attempts[-1].reason)
        if call.trace is not None:
            trace_attempt_end(call, attempt.status, attempt.failure)
        told: int | str = "cancelled" if attempt.left else "error"
        if attempt.status:
            told = attempt.status
        self._metrics.attempt(upstream.config.name, told, time.perf_counter() - attempt.clock)

    async def _answered(
        self, call: Call, fields: RequestFields, candidate: Candidate, upstream: LiveUpstream, deadline: float
    ) -> Exchange:
        """An exchange whose answer's head is there. A kept connection that had died unseen is replaced, once: told by
        its end within a moment. One that ends later has been read from, and the call perhaps been worked on: sending it
        again is a retry (RFC 9110 §9.2.2), and not to be had past the budget."""
        config = upstream.config
        caller = upstream.caller
        assert caller is not None
        body = fields.body if candidate.upstream_model == fields.model else fields.renamed(candidate.upstream_model)
        if call.meter is not None and call.meter.asks_for_usage:
            body = with_usage_asked_for(body)
        query = f"?{call.query}" if call.query else ""
        request = OutgoingRequest(
            call.path.removeprefix("/v1") + query,
            request_headers(call, config),
            body,
            candidate.upstream_model,
            fields.stream,
            ids_sent_on(call),
        )
        call.wait_begins()
        for last in (False, True):
            exchange = await caller.open(request, min(deadline, self._now() + config.connect_timeout), fresh=last)
            sent = self._now()
            try:
                first_token = sent + config.first_token_timeout
                reason: Literal["first_token_timeout", "request_timeout"]
                reason = "first_token_timeout" if first_token < deadline else "request_timeout"
                while not exchange.status:
                    await exchange.advance(min(first_token, deadline), reason)
            except UpstreamBroken as broken:
                exchange.abort()
                if last or not broken.unanswered or self._now() - sent > DEAD_UNSEEN_SECONDS:
                    raise
            except BaseException:
                exchange.abort()
                raise
            else:
                return exchange
        raise AssertionError("unreachable")

    async def _hold(
        self, exchange: Exchange, fields: RequestFields, upstream: LiveUpstream, began: float, deadline: float
    ) -> None:
        """Waits for the point of no return."""
        first_token = began + upstream.config.first_token_timeout
        streamed = _is_event_stream(exchange.headers)
        scan = BeginningScan() if streamed and not _is_encoded(exchange.headers) else None
        while not exchange.complete:
            if scan is not None:
                beginning = scan.look(exchange.buffer)
                if beginning is Beginning.ERROR:
                    raise _Failed(Outcome.FAILURE, "error_event", exchange.status)
                if beginning is Beginning.CONTENT:
                    return
                limit, reason = first_token, "first_token_timeout"
            elif len(exchange.buffer) > HOLD_MAX_BYTES or (
                exchange.buffer and (streamed or _is_played(exchange.headers))
            ):
                return
            elif fields.stream or not exchange.buffer:
                limit, reason = first_token, "first_token_timeout"
            else:
                limit, reason = self._now() + upstream.config.idle_timeout, "idle_timeout"
            if limit >= deadline:
                limit, reason = deadline, "request_timeout"
            await exchange.advance(limit, reason)  # type: ignore[arg-type]
        if scan is not None and (beginning := scan.look(exchange.buffer)) is not Beginning.CONTENT:
            reason = "error_event" if beginning is Beginning.ERROR else "empty_stream"
            raise _Failed(Outcome.FAILURE, reason, exchange.status)

    def _serves(self, call: Call, candidate: Candidate, upstream: LiveUpstream) -> None:
        call.upstream = upstream.config.name
        self._note(call, candidate, upstream, "served", None)
        if candidate.is_fallback:
            call.fallback_model = candidate.model

    async def _relay(
        self,
        call: Call,
        exchange: Exchange,
        upstream: LiveUpstream,
        reply: Reply,
        deadline: float,
        keep_alive: KeepAlive | None,
    ) -> None:
        """The answer's way to the client, past the point of no return."""
        whole_events = _is_event_stream(exchange.headers) and not _is_encoded(exchange.headers)
        call.first_token = time.perf_counter() if whole_events else 0.0
        begun = keep_alive is not None and keep_alive.begun
        if begun and not (whole_events and exchange.status == 200):
            if call.meter is not None:
                call.meter.whole(exchange.status, bytes(exchange.buffer), events=False)
            self._renote(call, "not_a_stream", exchange.status)
            self._end_begun(reply, error_as_event(call.path, bytes(exchange.buffer)))
            return
        if exchange.complete and not begun:
            body = bytes(exchange.buffer)
            exchange.buffer = bytearray()
            if call.meter is not None:
                body = call.meter.whole(exchange.status, body, events=whole_events)
            self._glimpse(call, upstream, body, body)
            reply.whole(exchange.status, answer_headers(call, exchange.headers), body)
            return
        length = content_length(exchange.headers)
        sink: Sink = reply if keep_alive is None or not whole_events else keep_alive
        reader = call.meter.relays(exchange.status, sink, events=whole_events) if call.meter is not None else None
        if reader is not None:
            sink = reader
        events: WholeEvents | None = None
        beginning = bytes(exchange.buffer[:BEGINNING_BYTES])
        if whole_events and keep_alive is not None:
            events = WholeEvents(sink)
            keep_alive.relays(events)
            length = None  # signs of life are not counted in it
        elif whole_events and (length is None or reader is not None):
            events = WholeEvents(sink)
        if reader is not None and reader.hides:
            length = None
        if not begun:
            reply.start(exchange.status, answer_headers(call, exchange.headers), length)
        try:
            await exchange.relay(events or sink, upstream.config.idle_timeout, deadline)
        except UpstreamBroken as broken:
            self._renote(call, f"truncated_{broken.reason}", exchange.status)
            if events is not None and events.between:
                self._end_begun(reply, stream_error(call.path))
            else:
                self._metrics.truncated.inc()
                reply.break_off()
            raise _BrokenOff from None
        if events is not None:
            events.flush()
            self._glimpse(call, upstream, events.end, beginning)
        if reader is not None:
            reader.done()
        reply.finish()

    @staticmethod
    def _renote(call: Call, reason: str, status: int) -> None:
        """Says of the attempt that served how it ended after all."""
        last = call.attempts[-1]
        call.attempts[-1] = AttemptRecord(last.model, last.upstream, reason, status)

    @staticmethod
    def _glimpse(call: Call, upstream: LiveUpstream, end: bytes, beginning: bytes) -> None:
        """Learns what the answer used where no meter reads it; what that one reads counts for more."""
        if call.meter is None or not call.meter.reads:
            call.usage = priced(usage_told(end, beginning), upstream.config.prices, call.target_model)

    def _end_begun(self, reply: Reply, event: bytes) -> None:
        """Ends a stream that has begun with an error event, and so without `[DONE]`."""
        self._metrics.truncated.inc()
        reply.write(event)
        reply.finish()


class _Attempt:
    """What is known of one attempt as it goes."""

    __slots__ = ("began", "clock", "exchange", "failure", "judged", "left", "outcome", "rest", "status")

    def __init__(self, began: float) -> None:
        self.began = began
        self.clock = time.perf_counter()  # the loop's clock moves once an iteration: too coarse to measure with
        self.exchange: Exchange | None = None
        self.outcome = Outcome.NEUTRAL
        self.rest: float | None = None
        self.status: int | None = None
        self.failure: str | None = None
        self.judged = False
        self.left = False

    def failed(self, outcome: Outcome, failure: str, rest: float | None) -> None:
        self.outcome = outcome
        self.failure = failure
        self.rest = rest


class _Chain:
    """What a call has met with on its way through its candidates."""

    __slots__ = ("failed", "limited", "soonest", "throttled", "tried", "uncounted")

    def __init__(self) -> None:
        self.tried = False
        self.throttled = True
        self.soonest: float | None = None
        self.limited: Refused | None = None
        self.uncounted = False
        self.failed: list[tuple[str, str]] = []
        """Targets: upstream and the model there."""


def _header(call: Call, name: str) -> bytes | None:
    """A header's value, its lines joined (RFC 9110 §5.3)."""
    wanted = name.encode()
    return b", ".join(value for key, value in call.headers if key == wanted) or None


_SHUT_REASON: Mapping[str, str] = {"open": "circuit_open", "probing": "circuit_open", "resting": "throttled"}


def _judge_status(exchange: Exchange) -> None:
    """Raises _Failed for an answer that is not the client's."""
    status = exchange.status
    if status == 429:
        rest = retry_after(header_map(exchange.headers), time.time(), limited=True)
        raise _Failed(Outcome.THROTTLED, "throttled", status, THROTTLED_REST_SECONDS if rest is None else rest)
    if status in (401, 403):
        raise _Failed(Outcome.MISCONFIGURED, "credential_refused", status)
    if status >= 500 or status == 408:
        rest = retry_after(header_map(exchange.headers), time.time(), limited=False)
        raise _Failed(Outcome.FAILURE, "server_error", status, rest)
    if 300 <= status < 400:
        raise _Failed(Outcome.FAILURE, "redirected", status)  # never followed: the client's body would go astray


def _sooner(a: float | None, b: float) -> float:
    return b if a is None else min(a, b)


def _is_event_stream(headers: Headers) -> bool:
    for name, value in headers:  # noqa: SIM110 - a generator costs more than the loop
        if name == b"content-type" and value.lower().startswith(b"text/event-stream"):
            return True
    return False


def _is_played(headers: Headers) -> bool:
    """Whether an answer is sound, which is played as it comes: holding it back would be heard."""
    for name, value in headers:
        if name == b"content-type":
            return value.lower().startswith((b"audio/", b"application/octet-stream"))
    return False


def _is_encoded(headers: Headers) -> bool:
    return any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers)
