"""For each alert: the series under which it fires, and those under which it must not. In promtool's notation, a value a
minute; `rising(n)` is a counter that grows by n each minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass

POD = 'namespace="shop", gateway="default", pod="web-1"'
OTHER_POD = 'namespace="shop", gateway="default", pod="web-2"'
MINUTES = 480
DAY = 24 * 60 * 60
SOON = "90m"
LATE = "470m"
"""For windows of six hours."""


def rising(by: float) -> str:
    return f"0+{by}x{MINUTES}"


def still(value: float) -> str:
    return f"{value}x{MINUTES}"


Series = Mapping[str, str]
"""Series -> values."""


@dataclass(frozen=True, slots=True)
class Case:
    fires: Series
    quiet: Series
    at: str = SOON


def _calls(failed: float, served: float = 100) -> Series:
    return {
        f'gateway_requests_total{{{POD}, method="POST", path="/v1/chat/completions", status="200"}}': rising(served),
        f'gateway_requests_total{{{POD}, method="POST", path="/v1/chat/completions", status="502"}}': rising(failed),
        # scrapes and probes are no calls
        f'gateway_requests_total{{{POD}, method="GET", path="/ready", status="503"}}': rising(1000),
    }


def _attempts(status: str, each_minute: float) -> Series:
    return {
        f'gateway_upstream_requests_total{{{POD}, upstream="openai", status="200"}}': rising(100),
        f'gateway_upstream_requests_total{{{POD}, upstream="openai", status="{status}"}}': rising(each_minute),
    }


def _overhead(slow: float) -> Series:
    series = f"llmroute_overhead_seconds_bucket{{{POD}, le="
    return {
        series + '"0.25"}': rising(100 - slow),
        series + '"1"}': rising(100),
        series + '"+Inf"}': rising(100),
    }


def _looks(result: str) -> str:
    return f'llmroute_controller_injector_certificate_looks_total{{result="{result}"}}'


def _fallbacks(decision: str) -> str:
    return f'llmroute_shared_state_fallbacks_total{{{POD}, decision="{decision}"}}'


def _routes(condition: str) -> str:
    return f'llmroute_controller_routes_in_trouble{{namespace="shop", condition="{condition}"}}'


def _pods(**by_state: int) -> Series:
    return {f'llmroute_controller_pods{{state="{state}"}}': still(count) for state, count in by_state.items()}


def _admissions(result: str) -> str:
    return f'llmroute_injector_admissions_total{{pod="a", result="{result}"}}'


def _admission_seconds(slow: float) -> Series:
    bounds = {"1": 100 - slow, "5": 100.0, "+Inf": 100.0}
    return {f'llmroute_injector_admission_seconds_bucket{{le="{le}"}}': rising(by) for le, by in bounds.items()}


def _watched(pod: str) -> str:
    return f'llmroute_injector_last_watch_timestamp_seconds{{pod="{pod}"}}'


def _certificate(pod: str) -> str:
    return f'llmroute_injector_certificate_expiry_timestamp_seconds{{pod="{pod}"}}'


def _one(series: str, fires: str, quiet: str) -> Case:
    return Case({series: fires}, {series: quiet})


def _share_of_calls(series: str, fires: float, quiet: float) -> Case:
    return Case({**_calls(0), series: rising(fires)}, {**_calls(0), series: rising(quiet)})


ALERT_CASES: Mapping[str, Case] = {
    "LLMRouteErrorBudgetBurnsFast": Case(_calls(10), _calls(5)),
    "LLMRouteErrorBudgetBurnsSlowly": Case(_calls(4), _calls(2), LATE),
    "LLMRouteUpstreamFailing": Case(_attempts("503", 50), _attempts("429", 50)),
    "LLMRouteCredentialRefused": Case(_attempts("401", 1), _attempts("404", 1)),
    "LLMRouteBreakerOpen": _one(f'llmroute_breaker_state{{{POD}, upstream="openai"}}', "2x9 1 2x470", "2 2 0 " * 160),
    "LLMRouteFallbacksHigh": _share_of_calls(
        f'gateway_fallback_used_total{{{POD}, from_model="gpt", to_model="llama"}}', 30, 10
    ),
    "LLMRouteStreamsTruncated": _share_of_calls(f"llmroute_streams_truncated_total{{{POD}}}", 5, 1),
    "LLMRouteCallsLimited": _share_of_calls(f"gateway_rate_limited_total{{{POD}}}", 20, 5),
    "LLMRouteBudgetSpent": _one(
        f'llmroute_limit_remaining{{{POD}, route="chat", limit="spend", kind="budget"}}', still(0), still(0.5)
    ),
    "LLMRoutePriceUnknown": _one(f'llmroute_price_unknown_total{{{POD}, model="mine"}}', rising(1), still(7)),
    "LLMRouteConfigNotServed": _one(f"llmroute_config_healthy{{{POD}}}", still(0), still(1)),
    "LLMRouteRevisionsDiffer": Case(
        {
            f'llmroute_config_revision_info{{{POD}, revision="4f0c"}}': still(1),
            f'llmroute_config_revision_info{{{OTHER_POD}, revision="91aa"}}': still(1),
        },
        {
            f'llmroute_config_revision_info{{{POD}, revision="4f0c"}}': still(1),
            f'llmroute_config_revision_info{{{OTHER_POD}, revision="4f0c"}}': still(1),
        },
    ),
    "LLMRouteGatewayDown": _one(f'up{{{POD}, job="llmroute-gateway"}}', still(0), still(1)),
    "LLMRouteGatewaySlow": Case(_overhead(5), _overhead(0.5)),
    "LLMRouteControllerDown": Case({'up{job="another"}': still(1)}, {'up{job="llmroute-controller"}': still(1)}),
    "LLMRouteReconcilesFail": _one('llmroute_controller_reconciles_total{result="error"}', rising(1), still(3)),
    "LLMRouteReconcileQueueStuck": _one("llmroute_controller_queue_depth", still(2), "5 0 " * 240),
    "LLMRouteWatchSilent": _one('llmroute_controller_watch_silence_seconds{watch="llmroutes"}', still(200), still(100)),
    "LLMRouteRelistOld": _one("llmroute_controller_last_relist_timestamp_seconds", still(0), "0+60x480"),
    "LLMRouteCertificateUnattended": Case(
        {_looks("success"): still(5), _looks("error"): rising(2)},
        {_looks("success"): rising(12), _looks("error"): rising(1)},
    ),
    "LLMRouteSharedStateDown": _one(f"llmroute_shared_state_up{{{POD}}}", still(0), "0 1 " * 240),
    "LLMRouteLimitsCountedApart": _one(_fallbacks("fail_open"), rising(1), still(9)),
    "LLMRouteLimitsUnavailable": _one(_fallbacks("fail_closed"), rising(1), still(9)),
    "LLMRouteNotAccepted": _one(_routes("Accepted"), still(1), still(0)),
    "LLMRouteRefsUnresolved": _one(_routes("ResolvedRefs"), still(1), still(0)),
    "LLMRoutePodsBehind": Case(_pods(behind=1), {**_pods(synced=9), **_pods(behind=0, unreachable=0)}),
    "LLMRoutePodRestartRequired": _one(_routes("PodRestartRequired"), still(2), still(0)),
    "LLMRoutePodsWithoutGateway": _one(
        'llmroute_controller_pods_without_gateway{namespace="shop"}', still(1), still(0)
    ),
    "LLMRouteInjectorDown": Case(
        {'up{job="llmroute-injector", pod="a"}': still(0), 'up{job="llmroute-injector", pod="b"}': still(0)},
        {'up{job="llmroute-injector", pod="a"}': still(0), 'up{job="llmroute-injector", pod="b"}': still(1)},
    ),
    "LLMRouteInjectorFails": _one(_admissions("error"), rising(1), still(4)),
    "LLMRouteInjectorSlow": Case(_admission_seconds(slow=5), _admission_seconds(slow=0.5)),
    "LLMRouteInjectorWatchStale": Case(
        {_watched("a"): "0+60x480", _watched("b"): still(0)},
        {_watched("a"): "0+60x480", _watched("b"): "0x5 0+60x480"},
    ),
    "LLMRouteInjectorInputRefused": Case(
        {'llmroute_injector_input_good{input="certificate"}': still(0)},
        {f'llmroute_injector_input_good{{input="{one}"}}': still(1) for one in ("certificate", "settings")},
    ),
    "LLMRouteCertificateExpires": Case(
        {_certificate("a"): still(30 * DAY), _certificate("b"): still(10 * DAY)},
        {_certificate("a"): still(30 * DAY), _certificate("b"): still(30 * DAY)},
    ),
    "LLMRouteWritesNeverEnd": _one('llmroute_controller_writes_total{kind="ConfigMap"}', rising(60), rising(6)),
}
