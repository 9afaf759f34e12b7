"""The platform team's dashboard: is anybody hurt, whose fault is it, what does it cost. First row first."""

from monitoring.panels import Dashboard, Panel, Query, Row
from monitoring.queries import CALLS, CHOSEN, GATEWAYS_WORD, average, increase, quantile, rate, selected, share

_DURATION = "gen_ai_server_request_duration_seconds"
_FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"  # noqa: S105 - no secret
_CALLS = rate("gateway_requests_total", CALLS)
_TOLD = rate(f"{_DURATION}_count")
_ATTEMPTS = rate("gateway_upstream_requests_total", by="upstream")

NOW = Row(
    "Is anybody hurt?",
    (
        Panel(
            "Calls that fail",
            "The share answered 5xx. The objective is below 0.5 %.",
            (Query(share(rate("gateway_requests_total", CALLS, 'status=~"5.."'), _CALLS)),),
            unit="percentunit",
            kind="number",
            width=4,
            warn=0.005,
            alarm=0.05,
        ),
        Panel("Calls", "Per second, all gateways.", (Query(_CALLS),), unit="reqps", kind="number", width=4),
        Panel(
            "First token, 95 of 100",
            "What a client of a stream waits for, failed attempts included.",
            (Query(quantile(0.95, _FIRST_TOKEN)),),
            unit="s",
            kind="number",
            width=4,
            warn=2.5,
            alarm=7.5,
        ),
        Panel(
            "Breakers not closed",
            "Pods times upstreams. Row 2 says which.",
            (Query(f"count({selected('llmroute_breaker_state')} > 0) or vector(0)"),),
            kind="number",
            width=4,
            warn=1,
            alarm=10,
        ),
        Panel(
            "Answered by a fallback",
            "The share that another model than the one asked for answered.",
            (Query(share(rate("gateway_fallback_used_total"), _CALLS)),),
            unit="percentunit",
            kind="number",
            width=4,
            warn=0.05,
            alarm=0.2,
        ),
        Panel(
            "Refused by a limit",
            "The share of calls. Row 4 says which limit is near its end.",
            (Query(share(rate("gateway_rate_limited_total"), _CALLS)),),
            unit="percentunit",
            kind="number",
            width=4,
            warn=0.02,
            alarm=0.1,
        ),
    ),
)

WHOSE = Row(
    "Whose fault is it?",
    (
        Panel(
            "Failed calls by origin",
            "Shares of the calls whose model could be read. Upstream: it failed or said no; gateway: a limit, a key, a "
            "request that makes no sense, or a fault of its own; client: it left.",
            (
                Query(
                    share(rate(f"{_DURATION}_count", f'error_type!~"|client_left|{GATEWAYS_WORD}"'), _TOLD), "upstream"
                ),
                Query(share(rate(f"{_DURATION}_count", f'error_type=~"{GATEWAYS_WORD}"'), _TOLD), "gateway"),
                Query(share(rate(f"{_DURATION}_count", 'error_type="client_left"'), _TOLD), "client"),
            ),
            unit="percentunit",
        ),
        Panel(
            "Failed calls by cause",
            "The code of the error, as docs/errors.md has it, or the upstream's status.",
            (Query(rate(f"{_DURATION}_count", 'error_type!=""', by="error_type"), "{{error_type}}"),),
            unit="reqps",
            kind="areas",
        ),
        Panel(
            "Failed attempts by upstream",
            "The share that failed or was refused. In all gateways: the provider. In one: its key or network.",
            (
                Query(
                    share(
                        rate("gateway_upstream_requests_total", 'status=~"5..|error|401|403|429"', by="upstream"),
                        _ATTEMPTS,
                    ),
                    "{{upstream}}",
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            "Breakers not closed",
            "Pods in which an upstream's breaker is open or half open.",
            (
                Query(
                    f"sum by (namespace, gateway, upstream) ({selected('llmroute_breaker_state')} > bool 0)",
                    "{{namespace}}/{{gateway}} {{upstream}}",
                ),
            ),
        ),
        Panel(
            "Fallbacks",
            "Which model stands in for which.",
            (Query(rate("gateway_fallback_used_total", by="from_model, to_model"), "{{from_model}} → {{to_model}}"),),
            unit="reqps",
            kind="areas",
        ),
        Panel(
            "Why attempts come to nothing",
            "The words of docs/failures.md.",
            (
                Query(
                    rate("llmroute_attempts_total", 'reason!="served"', by="upstream, reason"),
                    "{{upstream}} {{reason}}",
                ),
            ),
            unit="reqps",
            kind="areas",
        ),
    ),
)

SPEED = Row(
    "Is it slow, and where?",
    (
        Panel(
            "Calls by model, 95 of 100",
            "From the head to the last byte; answers are long, so the first token tells more.",
            (Query(quantile(0.95, _DURATION, by="gen_ai_request_model"), "{{gen_ai_request_model}}"),),
            unit="s",
        ),
        Panel(
            "First token by model, 95 of 100",
            "Of streams.",
            (Query(quantile(0.95, _FIRST_TOKEN, by="gen_ai_request_model"), "{{gen_ai_request_model}}"),),
            unit="s",
        ),
        Panel(
            "Time per output token by upstream",
            "The average over streams: the provider's own speed.",
            (
                Query(
                    average("gen_ai_server_time_per_output_token_seconds", by="llmroute_upstream"),
                    "{{llmroute_upstream}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Attempts by upstream, 95 of 100",
            "From an attempt's begin to the end of the upstream's answer.",
            (Query(quantile(0.95, "gateway_upstream_latency_seconds", by="upstream"), "{{upstream}}"),),
            unit="s",
        ),
        Panel(
            "The gateway's own time",
            "What calls took beside attempts and the pauses between them; the time in line for a slot is in it.",
            (
                Query(quantile(0.5, "llmroute_overhead_seconds"), "50 of 100"),
                Query(quantile(0.99, "llmroute_overhead_seconds"), "99 of 100"),
            ),
            unit="s",
        ),
        Panel(
            "Calls in flight",
            "By gateway.",
            (
                Query(
                    f"sum by (namespace, gateway) ({selected('gateway_in_flight_requests')})",
                    "{{namespace}}/{{gateway}}",
                ),
            ),
        ),
    ),
)

USE = Row(
    "Who uses what, and what does it cost?",
    (
        Panel(
            "Cost by model",
            "US dollars an hour, of models whose price is known.",
            (Query(f"3600 * {rate('llmroute_cost_usd_total', by='model')}", "{{model}}"),),
            unit="currencyUSD",
            kind="areas",
        ),
        Panel(
            "Cost by namespace",
            "US dollars in the time that is shown.",
            (Query(increase("llmroute_cost_usd_total", by="namespace, gateway, model")),),
            unit="currencyUSD",
            kind="table",
        ),
        Panel(
            "Tokens",
            "Per second, by model and whether they went in or came out.",
            (Query(rate("llmroute_tokens_total", by="model, type"), "{{model}} {{type}}"),),
            kind="areas",
        ),
        Panel(
            "What is left of limits",
            "Of the key that has the least, in the pod that has the least: requests, tokens, slots or US dollars.",
            (Query(f"sort(min by (namespace, gateway, route, limit, kind) ({selected('llmroute_limit_remaining')}))"),),
            kind="table",
        ),
        Panel(
            "Calls without a price",
            "A budget counts nothing of these: state the model's price in the route.",
            (Query(increase("llmroute_price_unknown_total", by="namespace, gateway, model")),),
            kind="table",
        ),
        Panel(
            "Answers cut short",
            "Per second: broken off by the upstream; settled by estimate.",
            (
                Query(rate("llmroute_streams_truncated_total"), "broken off"),
                Query(rate("llmroute_usage_estimated_total"), "estimated"),
            ),
            unit="reqps",
        ),
    ),
)

CONFIGURATION = Row(
    "Does every pod serve what was applied?",
    (
        Panel(
            "Revisions by gateway",
            "More than one for longer than a roll-out: some pods have not taken the change over.",
            (
                Query(
                    f"count by (namespace, gateway) (count by (namespace, gateway, revision) "
                    f"({selected('llmroute_config_revision_info')}))",
                    "{{namespace}}/{{gateway}}",
                ),
            ),
        ),
        Panel(
            "Pods that cannot serve it whole",
            "The newest configuration is there but broken, or a Secret is missing; the pod's /status says which.",
            (
                Query(
                    f"sum by (namespace, gateway) (1 - {selected('llmroute_config_healthy')})",
                    "{{namespace}}/{{gateway}}",
                ),
            ),
        ),
        Panel(
            "Reloads",
            "In the time that is shown: applied, partial (some route kept its last good version), failed.",
            (Query(increase("llmroute_config_reloads_total", by="namespace, gateway, result")),),
            kind="table",
        ),
        Panel(
            "Gateways that Prometheus reads",
            "Read and not read.",
            (
                Query(f'count(up{{job="llmroute-gateway", {CHOSEN}}} == 1) or vector(0)', "read"),
                Query(f'count(up{{job="llmroute-gateway", {CHOSEN}}} == 0) or vector(0)', "not read"),
            ),
        ),
        Panel(
            "Versions",
            "Pods by the gateway's version.",
            (Query(f"count by (version) ({selected('llmroute_build_info')})", "{{version}}"),),
            kind="areas",
        ),
    ),
)

OVERVIEW = Dashboard(
    "llmroute-overview",
    "llmroute / Overview",
    "All gateways: who is hurt, whose fault it is, what it costs.",
    ("namespace", "gateway"),
    (NOW, WHOSE, SPEED, USE, CONFIGURATION),
)
