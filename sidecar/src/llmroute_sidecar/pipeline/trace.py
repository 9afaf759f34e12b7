"""A call's spans: one for the request, one for each attempt, and what they say. Names, numbers and words of our own; of
what the client sends its ids, the path and the model's name, as in the log. Never a body, a header's value or a query.
"""

from llmroute_sidecar.pipeline.call import Call, Ids
from llmroute_sidecar.pipeline.tell import CLIENT_LEFT, error_type, is_broken, used
from llmroute_sidecar.policy.plan import Candidate
from llmroute_sidecar.snapshot import Upstream
from llmroute_sidecar.telemetry import genai
from llmroute_sidecar.telemetry.tracing import AttributeValue, Parent, Tracer

TEXT_MAX = 200
"""Characters of a text that a client chose."""
_NOT_SAMPLED = "00"


def begin_trace(tracer: Tracer, call: Call) -> None:
    """Gives the call a trace if it is to have one. Where the trace begins here and is not sampled, the ids say so."""
    if call.method != "POST":
        return  # probes, scrapes and lists
    ids = call.ids
    _, trace_id, span_id, flags = ids.traceparent.split("-")
    parent = Parent(trace_id, span_id, ids.caller_span, int(flags, 16))
    if ids.caller_span is None and not tracer.samples(trace_id):
        call.ids = Ids(ids.request_id, ids.trace_id, f"00-{trace_id}-{span_id}-{_NOT_SAMPLED}", None)
    elif parent.sampled:
        call.trace = tracer.begin(parent)


def trace_attempt(call: Call, candidate: Candidate, upstream: Upstream) -> None:
    """An attempt begins."""
    if call.trace is None:
        return
    operation = genai.operation_of(call.template)
    attributes: dict[str, AttributeValue] = {
        genai.OPERATION: operation,
        genai.PROVIDER: genai.provider_of(upstream.url, upstream.protocol),
        genai.REQUEST_MODEL: candidate.upstream_model[:TEXT_MAX],
        genai.UPSTREAM: upstream.name,
        "llmroute.attempt": call.tries,
        "server.address": upstream.url.host,
    }
    if upstream.url.port:
        attributes["server.port"] = upstream.url.port
    call.trace.attempt_begins(f"{operation} {candidate.upstream_model[:TEXT_MAX]}", attributes)


def trace_attempt_end(call: Call, status: int | None, failure: str | None) -> None:
    """The attempt is over; `failure` says why it came to nothing, or did not come to its end."""
    if call.trace is None:
        return
    attributes: dict[str, AttributeValue] = {}
    if call.upstream is not None:  # it served; those before it did not
        attributes.update(_usage(call))
        if call.first_token:
            attributes[genai.TIME_TO_FIRST_CHUNK] = call.trace.into_attempt(call.first_token)
    if status:
        attributes["http.response.status_code"] = status
        if failure is None and status >= 400:
            failure = str(status)
    if failure is not None:
        attributes[genai.ERROR_TYPE] = failure
    call.trace.attempt_ends(attributes, failed=failure is not None)


def _usage(call: Call) -> dict[str, AttributeValue]:
    usage = used(call, call.status)
    if usage is None:
        return {}
    told: dict[str, AttributeValue] = {genai.INPUT_TOKENS: usage.input, genai.OUTPUT_TOKENS: usage.output}
    if usage.estimated:
        told["llmroute.usage.estimated"] = True
    return told


def end_trace(call: Call, status: int) -> None:
    """The call is over."""
    if call.trace is None:
        return
    attributes: dict[str, AttributeValue] = {
        "http.request.method": call.method,
        "http.route": call.template,
        "url.path": call.path[:TEXT_MAX],
        "url.scheme": "http",
        "client.address": call.client_ip,
        "llmroute.request_id": call.ids.request_id,
        "llmroute.attempts": call.tries,
    }
    if call.model is not None:
        attributes[genai.OPERATION] = genai.operation_of(call.template)
        attributes[genai.REQUEST_MODEL] = call.model[:TEXT_MAX]
    attributes.update(_usage(call))
    if status != CLIENT_LEFT:  # nobody was sent that one
        attributes["http.response.status_code"] = status
    named = {
        "llmroute.client": call.client,
        "llmroute.route": call.entry.route if call.entry else None,
        genai.UPSTREAM: call.upstream,
        "llmroute.fallback_model": call.fallback_model,
        genai.ERROR_TYPE: error_type(call, status),
    }
    attributes.update((name, value) for name, value in named.items() if value is not None)
    if len(call.attempts) > 1 or (call.attempts and call.upstream is None):
        attributes["llmroute.tried"] = [f"{attempt.upstream}: {attempt.reason}" for attempt in call.attempts]
    # A server's span has not failed where the mistake is the client's (OpenTelemetry, HTTP spans).
    failed = status >= 500 or (status < 400 and is_broken(call))
    call.trace.ends(f"{call.method} {call.template}", attributes, failed=failed)
