"""One app's gateway, for the team that owns the app: its pods, its models, its limits."""

from functools import partial

from monitoring import shapes
from monitoring.panels import Dashboard, Query, Row
from monitoring.queries import CALLS, CHOSEN, average, selected
from monitoring.queries import rate as rate_of

_PODS = f'{CHOSEN}, pod=~"$pod"'
_DURATION = "gen_ai_server_request_duration_seconds"
_FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"  # noqa: S105 - no secret

rate = partial(rate_of, chosen=_PODS)
per_second = partial(shapes.per_second, chosen=_PODS)
percentiles = partial(shapes.percentiles, chosen=_PODS)
grown = partial(shapes.grown, chosen=_PODS)
_CALLS = rate("gateway_requests_total", CALLS)

CALLS_ROW = Row(
    "My calls",
    (
        shapes.share_now(
            "Calls that fail",
            "The share answered 5xx.",
            rate("gateway_requests_total", CALLS, 'status=~"5.."'),
            _CALLS,
            warn=0.005,
            alarm=0.05,
        ),
        shapes.number("Calls", "Per second.", _CALLS, unit="reqps"),
        shapes.share_now(
            "Answered by a fallback",
            "The share that another model than the one asked for answered.",
            rate("gateway_fallback_used_total"),
            _CALLS,
            warn=0.05,
            alarm=0.2,
        ),
        shapes.share_now(
            "Refused by a limit",
            "The share of calls.",
            rate("gateway_rate_limited_total"),
            _CALLS,
            warn=0.02,
            alarm=0.1,
        ),
        per_second(
            "Calls by status",
            "429 is a limit's or the provider's; x-llmroute-origin in the answer says whose.",
            "gateway_requests_total",
            CALLS,
            by="path, status",
            stacked=True,
        ),
        per_second(
            "Failed calls by model and cause",
            "The error's code, or the upstream's status.",
            f"{_DURATION}_count",
            'error_type!=""',
            by="gen_ai_request_model, error_type",
            stacked=True,
        ),
        per_second(
            "Calls by pod",
            "A pod without any: is the app's OPENAI_BASE_URL the gateway's?",
            "gateway_requests_total",
            CALLS,
            by="pod",
        ),
    ),
)

SPEED = Row(
    "Its speed",
    (
        percentiles(
            "First token",
            "Of streams, by model: 50 and 95 of 100.",
            _FIRST_TOKEN,
            of=(0.5, 0.95),
            by="gen_ai_request_model",
        ),
        percentiles(
            "Whole answer",
            "All calls, by path: 50 and 95 of 100.",
            "gateway_request_latency_seconds",
            CALLS,
            of=(0.5, 0.95),
            by="path",
        ),
        shapes.over_time(
            "Attempts by upstream",
            "The average.",
            Query(average("gateway_upstream_latency_seconds", by="upstream", chosen=_PODS), "{{upstream}}"),
            unit="s",
        ),
        percentiles(
            "The gateway's own time by pod, 99 of 100",
            "Beside attempts; in it is the time in line for a slot.",
            "llmroute_overhead_seconds",
            of=(0.99,),
            by="pod",
        ),
        shapes.over_time(
            "Calls in flight and in line",
            "In line for a limit's slots.",
            Query(f"sum by (pod) ({selected('gateway_in_flight_requests', chosen=_PODS)})", "{{pod}}"),
            Query(
                f"sum by (route, limit) ({selected('llmroute_limit_waiting', chosen=_PODS)})",
                "in line for {{route}}/{{limit}}",
            ),
        ),
    ),
)

UPSTREAMS = Row(
    "Its upstreams",
    (
        per_second(
            "Attempts by upstream and status",
            "error: no answer at all; cancelled: the client left.",
            "gateway_upstream_requests_total",
            by="upstream, status",
            stacked=True,
        ),
        shapes.over_time(
            "Breakers",
            "0 closed, 1 half open, 2 open: the worst pod.",
            Query(f"max by (upstream) ({selected('llmroute_breaker_state', chosen=_PODS)})", "{{upstream}}"),
        ),
        shapes.over_time(
            "Not tried",
            "Attempts that an open breaker spared; retries that the retry budget did.",
            Query(rate("gateway_circuit_open_total", by="upstream"), "{{upstream}} breaker"),
            Query(rate("llmroute_retries_refused_total", by="upstream"), "{{upstream}} retry budget"),
            unit="reqps",
        ),
        shapes.over_time(
            "litellm workers",
            "Resident memory of the processes behind litellm:// upstreams. No data: there are none.",
            Query(
                f"max by (pod, upstream) ({selected('llmroute_litellm_worker_resident_bytes', chosen=_PODS)})",
                "{{pod}} {{upstream}}",
            ),
            unit="bytes",
        ),
        grown(
            "Restarts of litellm workers",
            "In the time that is shown.",
            "llmroute_litellm_worker_restarts_total",
            by="pod, upstream",
        ),
    ),
)

USE = Row(
    "What it uses",
    (
        shapes.over_time(
            "Cost by model",
            "US dollars an hour.",
            Query(f"3600 * {rate('llmroute_cost_usd_total', by='model, upstream')}", "{{model}} {{upstream}}"),
            unit="currencyUSD",
            stacked=True,
        ),
        per_second(
            "Tokens by model",
            "Per second.",
            "llmroute_tokens_total",
            by="model, type, estimated",
            legend="{{model}} {{type}} est. {{estimated}}",
            unit="short",
            stacked=True,
        ),
        shapes.over_time(
            "Tokens of a call",
            "The average, by model.",
            Query(
                average("gen_ai_client_token_usage", by="gen_ai_request_model, gen_ai_token_type", chosen=_PODS),
                "{{gen_ai_request_model}} {{gen_ai_token_type}}",
            ),
        ),
        shapes.table(
            "What is left of limits, by pod",
            "To the key that has the least: requests, tokens, slots or US dollars.",
            f"min by (pod, route, limit, kind) ({selected('llmroute_limit_remaining', chosen=_PODS)})",
        ),
        shapes.table(
            "Revision by pod",
            "And since when it is served.",
            f"max by (pod, revision) ({selected('llmroute_config_revision_info', chosen=_PODS)})",
            f"1000 * max by (pod) ({selected('llmroute_config_last_change_timestamp_seconds', chosen=_PODS)})",
            unit="dateTimeFromNow",
        ),
    ),
)

GATEWAY = Dashboard(
    "llmroute-gateway",
    "llmroute / Gateway of one app",
    "The gateways in the pods of one app.",
    ("namespace", "gateway", "pod"),
    (CALLS_ROW, SPEED, UPSTREAMS, USE),
)
