"""What is told of a call once it is over: its metrics, and its log line where the route's sampling lets it have one.

All of it is made from the `Call` and the configuration: names that are in it, words and numbers of our own. Of what the
client sends there is the model's name and the path in the log line, cut to a bound; in labels there is nothing of it.
"""

import time

from llmroute_sidecar.pipeline.call import Call
from llmroute_sidecar.pipeline.usage import Usage
from llmroute_sidecar.policy.limits.rules import PICODOLLARS
from llmroute_sidecar.policy.plan import DEFAULT_NAME
from llmroute_sidecar.policy.sampling import is_logged
from llmroute_sidecar.telemetry.genai import OTHER
from llmroute_sidecar.telemetry.log import timestamp
from llmroute_sidecar.telemetry.metrics import Metrics
from llmroute_sidecar.telemetry.request_line import LogLine, Tokens

CLIENT_LEFT = 499


def tell_metrics(call: Call, status: int, seconds: float, metrics: Metrics) -> None:
    """Counts what was learnt of a call beside its status. `seconds` from its head to its end."""
    if call.model is None:
        return  # refused before anybody read what it wanted
    series = metrics.calls.of(call.template, model_label(call), call.target)
    series.ended(error_type(call, status), seconds)
    if call.target is not None and status != CLIENT_LEFT:
        call.wait_ends()
        metrics.overhead.observe(max(0.0, seconds - call.waited))
    if call.first_token:
        series.first_token(call.first_token - call.started)
    usage = used(call, status)
    if usage is None:
        return
    series.used(usage.input, usage.output, estimated=usage.estimated)
    if usage.cost is not None:
        series.cost(usage.cost / PICODOLLARS)
    if call.first_token and not usage.estimated:
        series.pace(call.started + seconds - call.first_token, usage.output)


def used(call: "Call | Ended", status: int) -> Usage | None:
    """What the call used, where that is known: of an answer that is an error it is nothing, and not told."""
    return call.usage if status < 400 or status == CLIENT_LEFT else None


def model_label(call: Call) -> str:
    """The model asked for, by the name that the configuration has for it: its own, or the pattern that it fits."""
    entry = call.entry
    return OTHER if entry is None or entry.name == DEFAULT_NAME else entry.name


def error_type(call: Call, status: int) -> str | None:
    """What went wrong, in a word of a bounded set; None where nothing did."""
    if status == CLIENT_LEFT:
        return "client_left"
    if call.error_code is not None:
        return call.error_code
    if call.exception is not None:
        return "internal_error"
    if status >= 400:
        return str(status)
    return call.attempts[-1].reason if is_broken(call) else None


def is_broken(call: "Call | Ended") -> bool:
    """Whether the answer's status promised more than came: a stream that broke off, or that was kept alive in vain."""
    return bool(call.attempts) and call.attempts[-1].reason != "served"


def is_told(call: Call, status: int) -> bool:
    """Whether it leaves a log line."""
    entry, serving = call.entry, call.serving
    if entry is None or serving is None:
        return True  # no route has a say
    rules = serving.snapshot.routes[entry.route].log_sample
    if not rules:
        return True
    broken = call.exception is not None or (status < 400 and is_broken(call))
    return is_logged(rules, status, call.client, call.model or "", call.ids.trace_id, broken=broken)


class Ended:
    """What a call's line is made of, as it was when the call ended.

    The last calls are kept so, whether or not the log has them, and hardly one of them is ever looked at: to take the
    values costs a sixth of what the line costs. Of what a call was served from there is nothing: it may go.
    """

    __slots__ = (
        "at",
        "attempts",
        "client",
        "client_ip",
        "error_code",
        "exception",
        "fallback_model",
        "ids",
        "limit",
        "method",
        "model",
        "path",
        "seconds",
        "status",
        "tries",
        "upstream",
        "usage",
    )

    def __init__(self, call: Call, status: int, seconds: float) -> None:
        self.at = time.time()
        """Unix seconds."""
        self.status = status
        self.seconds = seconds
        self.ids = call.ids
        self.method = call.method
        self.path = call.path[:200]
        self.upstream = call.upstream
        self.fallback_model = call.fallback_model
        self.client_ip = call.client_ip
        self.model = call.model
        self.client = call.client
        self.tries = call.tries
        self.usage = call.usage
        self.error_code = call.error_code
        self.limit = call.limit
        self.attempts = call.attempts
        self.exception = call.exception


def log_line(call: Ended) -> LogLine:
    usage = used(call, call.status)
    return LogLine(
        timestamp(call.at),
        "info" if call.status < 500 else "error",
        "request",
        "llmroute.request",
        call.ids.request_id,
        call.ids.trace_id,
        call.method,
        call.path,
        call.status,
        round(call.seconds * 1000, 3),
        call.upstream,
        call.fallback_model,
        call.client_ip,
        call.model,
        call.client,
        call.tries,
        None if usage is None else Tokens(usage.input, usage.output, usage.estimated),
        call.error_code,
        call.limit,
        [f"{attempt.upstream}: {attempt.reason}" for attempt in call.attempts]
        if len(call.attempts) > 1 or is_broken(call)
        else None,
        call.exception,
    )
