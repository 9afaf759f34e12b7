"""The platform team's dashboard: is anybody hurt, whose fault is it, what does it cost. First row first."""

from monitoring.panels import Dashboard, Query, Row
from monitoring.queries import CALLS, CHOSEN, GATEWAYS_WORD, average, quantile, rate, selected, share
from monitoring.scrape import GATEWAY_JOB
from monitoring.shapes import grown, number, over_time, per_second, percentiles, share_now, table

_DURATION = "gen_ai_server_request_duration_seconds"
_FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"  # noqa: S105 - no secret
_CALLS = rate("gateway_requests_total", CALLS)
_TOLD = rate(f"{_DURATION}_count")
_ATTEMPTS = rate("gateway_upstream_requests_total", by="upstream")
_GATEWAY = "{{namespace}}/{{gateway}}"

NOW = Row(
    "Is anybody hurt?",
    (
        share_now(
            "Calls that fail",
            "The share answered 5xx. The objective is below 0.5 %.",
            rate("gateway_requests_total", CALLS, 'status=~"5.."'),
            _CALLS,
            warn=0.005,
            alarm=0.05,
            width=4,
        ),
        number("Calls", "Per second, all gateways.", _CALLS, unit="reqps", width=4),
        number(
            "First token, 95 of 100",
            "What a client of a stream waits for, failed attempts included.",
            quantile(0.95, _FIRST_TOKEN),
            unit="s",
            warn=2.5,
            alarm=7.5,
            width=4,
        ),
        number(
            "Breakers not closed",
            "Pods times upstreams. Row 2 says which.",
            f"count({selected('llmroute_breaker_state')} > 0) or vector(0)",
            warn=1,
            alarm=10,
            width=4,
        ),
        share_now(
            "Answered by a fallback",
            "The share that another model than the one asked for answered.",
            rate("gateway_fallback_used_total"),
            _CALLS,
            warn=0.05,
            alarm=0.2,
            width=4,
        ),
        share_now(
            "Refused by a limit",
            "The share of calls. Row 4 says which limit is near its end.",
            rate("gateway_rate_limited_total"),
            _CALLS,
            warn=0.02,
            alarm=0.1,
            width=4,
        ),
    ),
)

WHOSE = Row(
    "Whose fault is it?",
    (
        over_time(
            "Failed calls by origin",
            "Shares of the calls whose model could be read. Upstream: it failed or said no; gateway: a limit, a key, a "
            "request that makes no sense, or a fault of its own; client: it left.",
            Query(share(rate(f"{_DURATION}_count", f'error_type!~"|client_left|{GATEWAYS_WORD}"'), _TOLD), "upstream"),
            Query(share(rate(f"{_DURATION}_count", f'error_type=~"{GATEWAYS_WORD}"'), _TOLD), "gateway"),
            Query(share(rate(f"{_DURATION}_count", 'error_type="client_left"'), _TOLD), "client"),
            unit="percentunit",
        ),
        per_second(
            "Failed calls by cause",
            "The code of the error, as docs/errors.md has it, or the upstream's status.",
            f"{_DURATION}_count",
            'error_type!=""',
            by="error_type",
            stacked=True,
        ),
        over_time(
            "Failed attempts by upstream",
            "The share that failed or was refused. In all gateways: the provider. In one: its key or network.",
            Query(
                share(
                    rate("gateway_upstream_requests_total", 'status=~"5..|error|401|403|429"', by="upstream"),
                    _ATTEMPTS,
                ),
                "{{upstream}}",
            ),
            unit="percentunit",
        ),
        over_time(
            "Breakers not closed",
            "Pods in which an upstream's breaker is open or half open.",
            Query(
                f"sum by (namespace, gateway, upstream) ({selected('llmroute_breaker_state')} > bool 0)",
                f"{_GATEWAY} {{{{upstream}}}}",
            ),
        ),
        per_second(
            "Fallbacks",
            "Which model stands in for which.",
            "gateway_fallback_used_total",
            by="from_model, to_model",
            legend="{{from_model}} → {{to_model}}",
            stacked=True,
        ),
        per_second(
            "Why attempts come to nothing",
            "The words of docs/failures.md.",
            "llmroute_attempts_total",
            'reason!="served"',
            by="upstream, reason",
            stacked=True,
        ),
    ),
)

SPEED = Row(
    "Is it slow, and where?",
    (
        percentiles(
            "Calls by model, 95 of 100",
            "From the head to the last byte; answers are long, so the first token tells more.",
            _DURATION,
            of=(0.95,),
            by="gen_ai_request_model",
        ),
        percentiles(
            "First token by model, 95 of 100", "Of streams.", _FIRST_TOKEN, of=(0.95,), by="gen_ai_request_model"
        ),
        over_time(
            "Time per output token by upstream",
            "The average over streams: the provider's own speed.",
            Query(
                average("gen_ai_server_time_per_output_token_seconds", by="llmroute_upstream"),
                "{{llmroute_upstream}}",
            ),
            unit="s",
        ),
        percentiles(
            "Attempts by upstream, 95 of 100",
            "From an attempt's begin to the end of the upstream's answer.",
            "gateway_upstream_latency_seconds",
            of=(0.95,),
            by="upstream",
        ),
        percentiles(
            "The gateway's own time",
            "What calls took beside attempts and the pauses between them; the time in line for a slot is in it.",
            "llmroute_overhead_seconds",
            of=(0.5, 0.99),
        ),
        over_time(
            "Calls in flight",
            "By gateway.",
            Query(f"sum by (namespace, gateway) ({selected('gateway_in_flight_requests')})", _GATEWAY),
        ),
    ),
)

USE = Row(
    "Who uses what, and what does it cost?",
    (
        over_time(
            "Cost by model",
            "US dollars an hour, of models whose price is known.",
            Query(f"3600 * {rate('llmroute_cost_usd_total', by='model')}", "{{model}}"),
            unit="currencyUSD",
            stacked=True,
        ),
        grown(
            "Cost by namespace",
            "US dollars in the time that is shown.",
            "llmroute_cost_usd_total",
            by="namespace, gateway, model",
            unit="currencyUSD",
        ),
        per_second(
            "Tokens",
            "Per second, by model and whether they went in or came out.",
            "llmroute_tokens_total",
            by="model, type",
            unit="short",
            stacked=True,
        ),
        table(
            "What is left of limits",
            "Of the key that has the least, in the pod that has the least: requests, tokens, slots or US dollars.",
            f"sort(min by (namespace, gateway, route, limit, kind) ({selected('llmroute_limit_remaining')}))",
        ),
        grown(
            "Calls without a price",
            "A budget counts nothing of these: state the model's price in the route.",
            "llmroute_price_unknown_total",
            by="namespace, gateway, model",
        ),
        over_time(
            "Answers cut short",
            "Per second: broken off by the upstream; settled by estimate.",
            Query(rate("llmroute_streams_truncated_total"), "broken off"),
            Query(rate("llmroute_usage_estimated_total"), "estimated"),
            unit="reqps",
        ),
    ),
)

TOGETHER = Row(
    "Are limits of scope Gateway counted together?",
    (
        over_time(
            "Pods without the shared state",
            "Their server does not answer in time. No data: none is configured, and limits are shared out by pods.",
            Query(f"sum by (namespace, gateway) (1 - {selected('llmroute_shared_state_up')})", _GATEWAY),
        ),
        per_second(
            "Calls not counted together",
            "fail_open: each pod counted by itself, and more than the limit may have passed; fail_closed: refused with "
            "limits_unavailable.",
            "llmroute_shared_state_fallbacks_total",
            by="namespace, gateway, decision",
            legend=f"{_GATEWAY} {{{{decision}}}}",
            stacked=True,
        ),
        percentiles(
            "Round trip to the shared state",
            "Each call with such a limit waits for one.",
            "llmroute_shared_state_round_trip_seconds",
            of=(0.5, 0.99),
        ),
        per_second(
            "Troubles with the shared state",
            "By the words of docs/shared-state.md.",
            "llmroute_shared_state_errors_total",
            by="namespace, gateway, reason",
            legend=f"{_GATEWAY} {{{{reason}}}}",
            unit="ops",
        ),
        over_time(
            "Settlements lost",
            "Per second. What was used and never came to the server: budgets there have counted too little.",
            Query(rate("llmroute_shared_state_settlements_lost_total", by="namespace, gateway"), _GATEWAY),
            unit="ops",
        ),
    ),
)

CONFIGURATION = Row(
    "Does every pod serve what was applied?",
    (
        over_time(
            "Revisions by gateway",
            "More than one for longer than a roll-out: some pods have not taken the change over.",
            Query(
                f"count by (namespace, gateway) (count by (namespace, gateway, revision) "
                f"({selected('llmroute_config_revision_info')}))",
                _GATEWAY,
            ),
        ),
        over_time(
            "Pods that cannot serve it whole",
            "The newest configuration is there but broken, or a Secret is missing; the pod's /status says which.",
            Query(f"sum by (namespace, gateway) (1 - {selected('llmroute_config_healthy')})", _GATEWAY),
        ),
        grown(
            "Reloads",
            "In the time that is shown: applied, partial (some route kept its last good version), failed.",
            "llmroute_config_reloads_total",
            by="namespace, gateway, result",
        ),
        over_time(
            "Gateways that Prometheus reads",
            "Read and not read.",
            Query(f'count(up{{job="{GATEWAY_JOB}", {CHOSEN}}} == 1) or vector(0)', "read"),
            Query(f'count(up{{job="{GATEWAY_JOB}", {CHOSEN}}} == 0) or vector(0)', "not read"),
        ),
        over_time(
            "Versions",
            "Pods by the gateway's version.",
            Query(f"count by (version) ({selected('llmroute_build_info')})", "{{version}}"),
            stacked=True,
        ),
    ),
)

OVERVIEW = Dashboard(
    "llmroute-overview",
    "llmroute / Overview",
    "All gateways: who is hurt, whose fault it is, what it costs.",
    ("namespace", "gateway"),
    (NOW, WHOSE, SPEED, USE, TOGETHER, CONFIGURATION),
)
