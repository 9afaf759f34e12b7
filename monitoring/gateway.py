"""One app's gateway, for the team that owns the app: its pods, its models, its limits."""

from monitoring.panels import Dashboard, Panel, Query, Row
from monitoring.queries import CALLS, CHOSEN, average, increase, quantile, rate, selected, share

_PODS = f'{CHOSEN}, pod=~"$pod"'
_DURATION = "gen_ai_server_request_duration_seconds"
_FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"  # noqa: S105 - no secret
_CALLS = rate("gateway_requests_total", CALLS, chosen=_PODS)


def _rate(metric: str, *matchers: str, by: str = "") -> str:
    return rate(metric, *matchers, by=by, chosen=_PODS)


CALLS_ROW = Row(
    "My calls",
    (
        Panel(
            "Calls that fail",
            "The share answered 5xx.",
            (Query(share(_rate("gateway_requests_total", CALLS, 'status=~"5.."'), _CALLS)),),
            unit="percentunit",
            kind="number",
            width=6,
            warn=0.005,
            alarm=0.05,
        ),
        Panel("Calls", "Per second.", (Query(_CALLS),), unit="reqps", kind="number", width=6),
        Panel(
            "Answered by a fallback",
            "The share that another model than the one asked for answered.",
            (Query(share(_rate("gateway_fallback_used_total"), _CALLS)),),
            unit="percentunit",
            kind="number",
            width=6,
            warn=0.05,
            alarm=0.2,
        ),
        Panel(
            "Refused by a limit",
            "The share of calls.",
            (Query(share(_rate("gateway_rate_limited_total"), _CALLS)),),
            unit="percentunit",
            kind="number",
            width=6,
            warn=0.02,
            alarm=0.1,
        ),
        Panel(
            "Calls by status",
            "429 is a limit's or the provider's; x-llmroute-origin in the answer says whose.",
            (Query(_rate("gateway_requests_total", CALLS, by="path, status"), "{{path}} {{status}}"),),
            unit="reqps",
            kind="areas",
        ),
        Panel(
            "Failed calls by model and cause",
            "The error's code, or the upstream's status.",
            (
                Query(
                    _rate(f"{_DURATION}_count", 'error_type!=""', by="gen_ai_request_model, error_type"),
                    "{{gen_ai_request_model}} {{error_type}}",
                ),
            ),
            unit="reqps",
            kind="areas",
        ),
        Panel(
            "Calls by pod",
            "A pod without any: is the app's OPENAI_BASE_URL the gateway's?",
            (Query(_rate("gateway_requests_total", CALLS, by="pod"), "{{pod}}"),),
            unit="reqps",
        ),
    ),
)

SPEED = Row(
    "Its speed",
    (
        Panel(
            "First token",
            "Of streams, by model: 50 and 95 of 100.",
            (
                Query(
                    quantile(0.5, _FIRST_TOKEN, by="gen_ai_request_model", chosen=_PODS), "{{gen_ai_request_model}} 50"
                ),
                Query(
                    quantile(0.95, _FIRST_TOKEN, by="gen_ai_request_model", chosen=_PODS), "{{gen_ai_request_model}} 95"
                ),
            ),
            unit="s",
        ),
        Panel(
            "Whole answer",
            "All calls, by path: 50 and 95 of 100.",
            (
                Query(quantile(0.5, "gateway_request_latency_seconds", CALLS, by="path", chosen=_PODS), "{{path}} 50"),
                Query(quantile(0.95, "gateway_request_latency_seconds", CALLS, by="path", chosen=_PODS), "{{path}} 95"),
            ),
            unit="s",
        ),
        Panel(
            "Attempts by upstream",
            "The average.",
            (Query(average("gateway_upstream_latency_seconds", by="upstream", chosen=_PODS), "{{upstream}}"),),
            unit="s",
        ),
        Panel(
            "The gateway's own time by pod, 99 of 100",
            "Beside attempts; in it is the time in line for a slot.",
            (Query(quantile(0.99, "llmroute_overhead_seconds", by="pod", chosen=_PODS), "{{pod}}"),),
            unit="s",
        ),
        Panel(
            "Calls in flight and in line",
            "In line for a limit's slots.",
            (
                Query(f"sum by (pod) ({selected('gateway_in_flight_requests', chosen=_PODS)})", "{{pod}}"),
                Query(
                    f"sum by (route, limit) ({selected('llmroute_limit_waiting', chosen=_PODS)})",
                    "in line for {{route}}/{{limit}}",
                ),
            ),
        ),
    ),
)

UPSTREAMS = Row(
    "Its upstreams",
    (
        Panel(
            "Attempts by upstream and status",
            "error: no answer at all; cancelled: the client left.",
            (Query(_rate("gateway_upstream_requests_total", by="upstream, status"), "{{upstream}} {{status}}"),),
            unit="reqps",
            kind="areas",
        ),
        Panel(
            "Breakers",
            "0 closed, 1 half open, 2 open: the worst pod.",
            (Query(f"max by (upstream) ({selected('llmroute_breaker_state', chosen=_PODS)})", "{{upstream}}"),),
        ),
        Panel(
            "Not tried",
            "Attempts that an open breaker spared; retries that the retry budget did.",
            (
                Query(_rate("gateway_circuit_open_total", by="upstream"), "{{upstream}} breaker"),
                Query(_rate("llmroute_retries_refused_total", by="upstream"), "{{upstream}} retry budget"),
            ),
            unit="reqps",
        ),
        Panel(
            "litellm workers",
            "Resident memory of the processes behind litellm:// upstreams. No data: there are none.",
            (
                Query(
                    f"max by (pod, upstream) ({selected('llmroute_litellm_worker_resident_bytes', chosen=_PODS)})",
                    "{{pod}} {{upstream}}",
                ),
            ),
            unit="bytes",
        ),
        Panel(
            "Restarts of litellm workers",
            "In the time that is shown.",
            (Query(increase("llmroute_litellm_worker_restarts_total", by="pod, upstream", chosen=_PODS)),),
            kind="table",
        ),
    ),
)

USE = Row(
    "What it uses",
    (
        Panel(
            "Cost by model",
            "US dollars an hour.",
            (Query(f"3600 * {_rate('llmroute_cost_usd_total', by='model, upstream')}", "{{model}} {{upstream}}"),),
            unit="currencyUSD",
            kind="areas",
        ),
        Panel(
            "Tokens by model",
            "Per second.",
            (
                Query(
                    _rate("llmroute_tokens_total", by="model, type, estimated"), "{{model}} {{type}} est. {{estimated}}"
                ),
            ),
            kind="areas",
        ),
        Panel(
            "Tokens of a call",
            "The average, by model.",
            (
                Query(
                    average("gen_ai_client_token_usage", by="gen_ai_request_model, gen_ai_token_type", chosen=_PODS),
                    "{{gen_ai_request_model}} {{gen_ai_token_type}}",
                ),
            ),
        ),
        Panel(
            "What is left of limits, by pod",
            "To the key that has the least: requests, tokens, slots or US dollars.",
            (Query(f"min by (pod, route, limit, kind) ({selected('llmroute_limit_remaining', chosen=_PODS)})"),),
            kind="table",
        ),
        Panel(
            "Revision by pod",
            "And since when it is served.",
            (
                Query(f"max by (pod, revision) ({selected('llmroute_config_revision_info', chosen=_PODS)})"),
                Query(
                    f"1000 * max by (pod) ({selected('llmroute_config_last_change_timestamp_seconds', chosen=_PODS)})"
                ),
            ),
            unit="dateTimeFromNow",
            kind="table",
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
