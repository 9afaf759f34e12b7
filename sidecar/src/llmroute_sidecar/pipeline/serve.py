"""One request's whole life, in the order it happens: who asks, may they, how much, where to, and what came of it.

`Gateway.screen` runs on the head, before the body is read: a caller without a key sends no body into memory.
`Gateway.serve` runs once the body is there. `Gateway.close` runs exactly once for each call that began, and is where
it is counted and logged.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, assert_never

from llmroute_sidecar.pipeline.attempt import AttemptEngine, GaveUp
from llmroute_sidecar.pipeline.body import JSON_PATHS, MODEL_MAX_LENGTH, BadBody, RequestFields, read_fields
from llmroute_sidecar.pipeline.call import Call, Reply
from llmroute_sidecar.pipeline.errors import Answer, ErrorCode, error
from llmroute_sidecar.pipeline.form import FORM_PATHS, FormFields, is_form, read_form
from llmroute_sidecar.pipeline.headers import where_it_went
from llmroute_sidecar.pipeline.metering import Metering
from llmroute_sidecar.pipeline.standing import refusal_text, standing_headers, standing_of, standing_together
from llmroute_sidecar.pipeline.tell import Ended, is_told, log_line, tell_metrics
from llmroute_sidecar.pipeline.together import Uncounted
from llmroute_sidecar.pipeline.trace import begin_trace, end_trace
from llmroute_sidecar.policy.keys import Ambiguous, Client, may_use, presented_key
from llmroute_sidecar.policy.limits.ledger import Ledger, Use
from llmroute_sidecar.policy.limits.rules import Limit, Refused
from llmroute_sidecar.policy.limits.shared import made_up_key
from llmroute_sidecar.policy.plan import DEFAULT_NAME, Plan
from llmroute_sidecar.policy.web_pages import is_of_another_site
from llmroute_sidecar.snapshot import Route, Snapshot
from llmroute_sidecar.telemetry.log import LogWriter, exception_text
from llmroute_sidecar.telemetry.metrics import LimitStanding, Metrics
from llmroute_sidecar.telemetry.tracing import Tracer
from llmroute_sidecar.upstream.exchange import Caller, Headers
from llmroute_sidecar.upstream.registry import Serving, adopt
from llmroute_sidecar.upstream.worker import Workers, WorkerSettings

if TYPE_CHECKING:
    from llmroute_sidecar.shared.state import SharedState

logger = logging.getLogger("llmroute.gateway")

POD = "pod"
"""The client's name where a route asks for no key: whoever reaches the loopback port is the pod itself."""
FINISHED_KEPT = 100
"""Calls that the admin port tells of. Some 100 KiB where all of them are; before the first one, nothing."""


class Gateway:
    """Serves calls from the current snapshot. One for a process."""

    def __init__(
        self,
        metrics: Metrics,
        log: LogWriter,
        loop: asyncio.AbstractEventLoop,
        workers: Workers | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._loop = loop
        self._workers = workers or Workers(WorkerSettings(), loop)
        self._metrics = metrics
        self._log = log
        self._ledger = Ledger()
        self._metering = Metering(self._ledger, metrics, loop)
        self._engine = AttemptEngine(self._ledger.requests, metrics, loop)
        self._closing: asyncio.Task[None] | None = None
        self._open_calls = 0
        self._on_idle: Callable[[], None] | None = None
        self._tracer = tracer
        self.serving: Serving | None = None
        self._replaced: list[Caller] = []
        """Of configurations before, on which calls still run."""
        self.draining = False
        self.finished: deque[Ended] = deque(maxlen=FINISHED_KEPT)
        """The last calls, oldest first."""
        metrics.watch_breakers(self._breaker_states)
        metrics.watch_limits(lambda: [standing for _, standing in self.limit_standings()])

    # -- configuration and drain -------------------------------------------------------------------------------------

    def use(self, snapshot: Snapshot) -> None:
        """Serves new requests from `snapshot`. State that it does not concern lives on."""
        previous = self.serving
        live = adopt(previous.live if previous else {}, snapshot, self._workers, self._loop)
        self._replaced = [
            caller
            for caller in (*self._replaced, *_callers(previous))
            if caller.open_connections and all(one.caller is not caller for one in live.values())
        ]
        self.serving = Serving(snapshot, live, snapshot.models.turns(previous.turns if previous else {}))
        self._ledger.keep_only(snapshot.limits())
        self._metering.learnt.keep_only({*snapshot.model_names, DEFAULT_NAME})
        self._share(snapshot)

    def _share(self, snapshot: Snapshot) -> None:
        """Follows what the snapshot says of the shared state. Nothing of it is loaded before one is asked for."""
        config, together = snapshot.shared_state, self._metering.together
        if config is None:
            self._close_shared()
            return
        if together.state is None:
            from llmroute_sidecar.shared.state import SharedState

            together.state = SharedState(config, self._metrics)
        live = self.serving.live if self.serving else {}
        together.state.use(config, {id_: one.breaker for id_, one in live.items() if one.config.breaker_shared})

    def _close_shared(self) -> "asyncio.Task[None] | None":
        state, self._metering.together.state = self._metering.together.state, None
        if state is None:
            return None
        self._closing = self._loop.create_task(state.close())
        return self._closing

    async def end(self) -> None:
        """Tells the shared state what calls have used, all of which are over."""
        closing = self._close_shared()
        if closing is not None:
            await closing

    @property
    def shared_state(self) -> "SharedState | None":
        return self._metering.together.state

    @property
    def open_connections(self) -> int:
        """To upstreams, with those that are kept for the next call."""
        return sum(caller.open_connections for caller in (*self._replaced, *_callers(self.serving)))

    @property
    def ready(self) -> bool:
        return self.serving is not None and not self.draining

    def drain(self, on_idle: Callable[[], None]) -> None:
        """Takes no new calls; `on_idle` is called once none is open any more, perhaps at once."""
        self.draining = True
        self._on_idle = on_idle
        if self._open_calls == 0:
            on_idle()

    def _breaker_states(self) -> list[tuple[str, str]]:
        now = self._loop.time()
        live = self.serving.live.values() if self.serving else ()
        return [(upstream.config.name, upstream.breaker.view(now).state.value) for upstream in live]

    def limit_standings(self) -> Iterable[tuple[Limit, LimitStanding]]:
        """Each limit, and what is left of it."""
        snapshot = self.serving.snapshot if self.serving else None
        limits = {limit.id: limit for limit in snapshot.limits()} if snapshot else {}
        shared = {limit.id for limit in snapshot.shared_limits()} if snapshot else set()
        together, now = self._metering.together, self._metering.now()
        return [
            (
                limit,
                standing_together(together, limit)
                if limit.id in shared and together.state is not None
                else standing_of(self._ledger, limit, now),
            )
            for limit in limits.values()
        ]

    # -- a request's life --------------------------------------------------------------------------------------------

    def begin(self, call: Call) -> None:
        """A request has begun; `close` follows exactly once."""
        if self._tracer is not None:
            begin_trace(self._tracer, call)
        self._open_calls += 1
        self._metrics.in_flight += 1

    def screen(self, call: Call) -> Answer | None:
        """Refuses a call on its head alone, before its body is read."""
        serving = self.serving
        if serving is None or self.draining:
            why = "the gateway is shutting down" if self.draining else "the gateway has no configuration yet"
            return self.refuse(call, "not_ready", f"{why}; try again", retry_after=1.0)
        call.serving = serving
        key = presented_key(call.header(b"x-api-key"), call.header(b"authorization"))
        if key is not None and not isinstance(key, Ambiguous):
            call.clients = serving.snapshot.keys.find(key)
        return None if serving.snapshot.open else self._unauthenticated(call)

    async def serve(self, call: Call, reply: Reply) -> None:
        """Answers a screened call. Cancelled when the client leaves. Faults of our own become a 500 without details."""
        try:
            answer = await self._serve(call, reply)
        except Exception as fault:  # noqa: BLE001 - the last resort: a client gets an answer, the log the place
            if reply.started:
                call.exception = exception_text(fault)
                reply.break_off()
                return
            answer = self._failed(call, fault)
        if answer is not None:
            reply.whole(answer.status, answer.headers, answer.body)

    def answer(self, call: Call, reply: Reply, endpoint: Callable[[Call], Answer]) -> None:
        """Answers a screened call to one of the small endpoints."""
        try:
            answer = endpoint(call)
        except Exception as fault:  # noqa: BLE001 - as above
            answer = self._failed(call, fault)
        else:
            answer.headers.extend(self.own_headers(call))
        reply.whole(answer.status, answer.headers, answer.body)

    def _failed(self, call: Call, fault: Exception) -> Answer:
        call.exception = exception_text(fault)
        return self.refuse(call, "internal_error", "the gateway failed on this request; its log says where")

    async def _serve(self, call: Call, reply: Reply) -> Answer | None:
        serving = call.serving
        assert serving is not None  # `screen` has refused otherwise
        if call.template not in JSON_PATHS and is_form(call.headers):
            fields: RequestFields | BadBody = read_form(call.headers, call.body)
            if isinstance(fields, FormFields):
                call.content_type = fields.content_type
        else:
            fields = read_fields(call.body)
        if isinstance(fields, BadBody):
            message = fields.message
            if call.template not in JSON_PATHS and call.template not in FORM_PATHS:  # files, batches, threads
                message += (
                    f"; {call.path[:200]} is no endpoint of the gateway's, and other calls go where their model says"
                )
            return self.refuse(call, "invalid_request", message, param=fields.param)
        call.body = b""
        call.model = fields.model
        snapshot = serving.snapshot
        entry = snapshot.models.find(fields.model)
        if entry is None:
            return self.refuse(
                call, "model_not_found", f"the model {fields.model!r} does not exist here; GET /v1/models lists them"
            )
        call.entry = entry
        route = snapshot.routes[entry.route]
        plan = snapshot.models.plan(fields.model)
        refused = self._admit_client(call, fields, route)
        if refused is None:
            if route.metered or route.shared or (snapshot.meters_upstreams and _meters(plan, serving)):
                refused = await self._admit_metered(call, fields, route, plan, serving)
            else:
                refused = self._admit_within_limits(call, fields, route)
        if refused is not None:
            return refused
        gave_up = await self._engine.serve(call, fields, plan, serving, reply)
        if gave_up is None:
            if call.fallback_model is not None:
                self._metrics.fallback_used(entry.name, self._label(call.fallback_model, snapshot))
            return None
        return self._no_candidate_left(call, gave_up)

    def close(self, call: Call, status: int) -> None:
        """The call is over: answered with `status`, or left by its client (499). Never raises: what goes wrong in
        telling of one call must not keep its connection, or the drain, waiting."""
        call.status = status
        try:
            self._settle_and_tell(call, status)
        except Exception as fault:
            logger.exception("telling of a call failed", exc_info=fault)
        self._metrics.in_flight -= 1
        self._open_calls -= 1
        if self._open_calls == 0 and self._on_idle is not None:
            self._on_idle()

    def _settle_and_tell(self, call: Call, status: int) -> None:
        if call.meter is not None:
            call.usage = call.meter.close() or call.usage
        seconds = time.perf_counter() - call.started
        self._metrics.request(call.method, call.template, status, seconds)
        if status == 429 and call.error_code in ("rate_limit_exceeded", "insufficient_quota"):
            self._metrics.rate_limited.inc()
        tell_metrics(call, status, seconds, self._metrics)
        if call.trace is not None:
            end_trace(call, status)
        over = Ended(call, status, seconds)
        if call.model is not None or status >= 400:  # else a probe, a scrape or a list
            self.finished.append(over)
        if is_told(call, status):
            self._log.write(log_line(over))

    # -- the stages --------------------------------------------------------------------------------------------------

    def _unauthenticated(self, call: Call) -> Answer | None:
        """The refusal of a call whose key stands for no client, or only for expired ones."""
        for client in call.clients:
            if client.expires_at is None or time.time() < client.expires_at:
                return None
        key = presented_key(call.header(b"x-api-key"), call.header(b"authorization"))
        if call.clients:
            message = "the API key has expired"
        elif key is None:
            message = "no API key was given; send it as Authorization: Bearer KEY or X-API-Key: KEY"
        elif isinstance(key, Ambiguous):
            message = "more than one API key was given; send one"
        else:
            message = "the API key is not known to this gateway"
        return self.refuse(call, "invalid_api_key", message)

    def _admit_client(self, call: Call, fields: RequestFields, route: Route) -> Answer | None:
        if route.open:
            call.client = POD
            return self._another_site(call, route)
        client = next((client for client in call.clients if client.route == route.name), None)
        if client is None:
            return self._unauthenticated(call) or self._not_allowed(call, fields)
        call.client = client.name
        match may_use(client, fields.model, time.time()):
            case "expired":
                return self.refuse(call, "invalid_api_key", "the API key has expired")
            case "model_not_allowed":
                return self._not_allowed(call, fields)
            case "yes":
                return None if client.models is None else self._more_not_allowed(call, fields, client)
            case never:
                assert_never(never)

    def _not_allowed(self, call: Call, fields: RequestFields) -> Answer:
        message = f"this API key may not use the model {fields.model!r}"
        return self.refuse(call, "model_not_allowed", message, param="model")

    def _more_not_allowed(self, call: Call, fields: RequestFields, client: Client) -> Answer | None:
        """The refusal of a body that would have the upstream choose a model which the client may not use."""
        names = fields.more_models
        if names is None:
            message = "this API key may use some models only: `models` and `fallbacks` must be lists of their names"
            return self.refuse(call, "model_not_allowed", message)
        for name in names:
            if may_use(client, name, time.time()) != "yes":
                message = f"this API key may not use the model {name[:MODEL_MAX_LENGTH]!r}, to be fallen back to"
                return self.refuse(call, "model_not_allowed", message)
        return None

    def _another_site(self, call: Call, route: Route) -> Answer | None:
        """The refusal of a call that is not the pod's, but a page's in its browser."""
        origins, fetch_sites = call.header(b"origin"), call.header(b"sec-fetch-site")
        if not origins and not fetch_sites:
            return None
        types = [value for name, value in call.headers if name == b"content-type"]
        if not is_of_another_site(origins, fetch_sites, call.header(b"host"), types):
            return None
        place = origins[0][:100].decode("latin-1") if origins else "unknown"
        message = (
            f"a web page of another site (origin {place!r}) may not call the route {route.name!r}, which asks for no "
            "key: call from a server or a page of this machine, or set the route's auth.mode to Keys"
        )
        return self.refuse(call, "origin_not_allowed", message)

    def _admit_within_limits(self, call: Call, fields: RequestFields, route: Route) -> Answer | None:
        if not route.limits:
            return None
        uses = [(limit, _limit_key(limit, call, fields)) for limit in route.limits]
        admitted = self._ledger.requests.admit(uses, self._loop.time())
        if isinstance(admitted, Refused):
            return self._over_limit(call, admitted)
        if admitted.standing is not None:
            call.limit_headers = standing_headers(admitted.standing)
        return None

    async def _admit_metered(
        self, call: Call, fields: RequestFields, route: Route, plan: Plan, serving: Serving
    ) -> Answer | None:
        """Beside requests, tokens, slots or money count: taken now, settled in `close`."""
        uses: list[Use] = [(limit, _limit_key(limit, call, fields)) for limit in route.metered or route.limits]
        first = plan.candidates[0]
        upstream = serving.live[first.upstream].config
        names = serving.snapshot.model_names
        shared: list[Use] = [(limit, _shared_key(limit, call, fields, names)) for limit in route.shared]
        call.meter = self._metering.meter(call.path, fields, first, upstream, uses, shared)
        refused: Refused | Uncounted | None
        if shared:
            refused = await self._metering.admit_together(call.meter, fail_closed=route.fail_closed)
        else:
            refused = await self._metering.admit(call.meter)
        if isinstance(refused, Uncounted):
            return self._uncounted(call, refused.retry_after)
        if refused is not None:
            return self._over_limit(call, refused)
        call.limit_headers = call.meter.headers()
        return None

    def _over_limit(self, call: Call, refused: Refused) -> Answer:
        standing = refused.standing
        call.limit = standing.name
        call.limit_headers = [*standing_headers(standing), (b"x-llmroute-limit", standing.name.encode())]
        return self.refuse(
            call,
            "insufficient_quota" if standing.kind == "budget" else "rate_limit_exceeded",
            refusal_text(refused),
            retry_after=refused.retry_after,
            kind=None if standing.kind == "budget" else standing.kind,
        )

    def _uncounted(self, call: Call, retry_after: float | None) -> Answer:
        message = "a limit that pods count together cannot be counted now; try again later"
        return self.refuse(call, "limits_unavailable", message, retry_after=retry_after)

    def _no_candidate_left(self, call: Call, gave_up: GaveUp) -> Answer:
        wait = gave_up.retry_after
        if gave_up.tried:
            message = f"no upstream could serve the model {call.model!r}; attempts tells what each one said"
            return self.refuse(
                call,
                "upstream_failed",
                message,
                attempts=True,
                retry_after=wait,
                worth_retrying=gave_up.throttled and wait is not None,
            )
        if gave_up.limited is not None:
            return self._over_limit(call, gave_up.limited)
        if gave_up.uncounted:
            return self._uncounted(call, wait)
        message = f"every upstream of the model {call.model!r} is resting after failures; try again later"
        return self.refuse(call, "circuit_open", message, retry_after=wait)

    def refuse(
        self,
        call: Call,
        code: ErrorCode,
        message: str,
        *,
        param: str | None = None,
        headers: Headers | None = None,
        attempts: bool = False,
        retry_after: float | None = None,
        worth_retrying: bool | None = None,
        kind: str | None = None,
    ) -> Answer:
        """An answer of the error table, with all headers that an answer of the gateway's carries."""
        call.error_code = code
        answer = error(
            code,
            message,
            anthropic=call.anthropic,
            param=param,
            headers=headers,
            attempts=call.attempts if attempts else None,
            retry_after=retry_after,
            worth_retrying=worth_retrying,
            kind=kind,
        )
        answer.headers.extend(self.own_headers(call))
        return answer

    @staticmethod
    def own_headers(call: Call) -> Headers:
        """What every answer of the gateway's own making carries, beside its ids."""
        headers = [(b"x-llmroute-origin", b"gateway"), *call.limit_headers]
        return headers + where_it_went(call) if call.attempts else headers

    @staticmethod
    def _label(model: str, snapshot: Snapshot) -> str:
        return model if model in snapshot.model_names else "other"


def _callers(serving: Serving | None) -> list[Caller]:
    return [one.caller for one in serving.live.values() if one.caller is not None] if serving is not None else []


def _meters(plan: Plan, serving: Serving) -> bool:
    """Whether an upstream that may serve has limits of its own on more than requests."""
    configs = (serving.live[candidate.upstream].config for candidate in plan.candidates)
    return any(config.metered or config.shared for config in configs)


def _shared_key(limit: Limit, call: Call, fields: RequestFields, names: frozenset[str]) -> str:
    """The same, bounded: a model that no configuration names is one of many."""
    key = _limit_key(limit, call, fields)
    return made_up_key(key) if limit.per == "Model" and key not in names else key


def _limit_key(limit: Limit, call: Call, fields: RequestFields) -> str:
    match limit.per:
        case "Client":
            return call.client or ""
        case "Model":
            return fields.model
        case _:
            return ""
