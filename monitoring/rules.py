"""Recording and alerting rules, as Prometheus and prometheus-operator take them.

An alert is a conjunction of conditions, each a query that has a value also while all is well: so the tests can ask a
real Prometheus for every one of them. Each alert has a page in docs/runbooks/.

The objective that error budgets are counted against: 99.5 % of calls are not answered 5xx. Burning it at 14.4 times the
rate that 30 days allow for spends 2 % of it in an hour, at 6 times 5 % in six hours (the windows and factors of the SRE
workbook, chapter 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from monitoring.scrape import CONTROLLER, GATEWAY_JOB, INJECTOR, OPERATOR_NAMESPACE

RUNBOOKS = "https://llmroute.dev/docs/runbooks/{name}.html"
"""Where an alert's page is. The chart's `monitoring.runbookUrl` and an overlay of kustomize say otherwise."""
OBJECTIVE = 0.995
Severity = Literal["critical", "warning", "info"]
PER_GATEWAY = "namespace, gateway"
DAY_SECONDS = 24 * 60 * 60
INJECTOR_GROUP = "llmroute-injector"
"""Its rules make no sense where no injector is installed: the chart leaves them out."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Over how long rates are taken, in PromQL's durations. Tests have shorter ones."""

    minutes5: str = "5m"
    minutes10: str = "10m"
    minutes30: str = "30m"
    hour: str = "1h"
    hours6: str = "6h"


@dataclass(frozen=True, slots=True)
class Recording:
    record: str
    query: str


@dataclass(frozen=True, slots=True)
class Condition:
    query: str
    comparison: str
    """An operator and a number."""

    @property
    def expression(self) -> str:
        return f"({self.query}) {self.comparison}"


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    severity: Severity
    lasting: str
    """How long it must hold before anybody is told."""
    conditions: tuple[Condition, ...]
    summary: str

    @property
    def expression(self) -> str:
        return "\nand\n".join(condition.expression for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    rules: tuple[Recording | Alert, ...]


def _rate(metric: str, window: str, matchers: str = "", by: str = PER_GATEWAY) -> str:
    return f"sum by ({by}) (rate({metric}{'{' + matchers + '}' if matchers else ''}[{window}]))"


def _share(part: str, whole: str) -> str:
    """Zero where there is none of the part; no number where there is nothing at all."""
    return f"({part} or 0 * {whole}) / {whole}"


def _error_ratio(window: str) -> str:
    calls = 'method="POST"'
    return _share(
        _rate("gateway_requests_total", window, f'{calls}, status=~"5.."'),
        _rate("gateway_requests_total", window, calls),
    )


def groups(windows: Windows = Windows()) -> Sequence[Group]:
    return (
        Group("llmroute-recording", tuple(_recordings(windows))),
        Group("llmroute-gateways", tuple(_gateway_alerts(windows))),
        Group("llmroute-shared-state", tuple(_shared_state_alerts(windows))),
        Group("llmroute-controller", tuple(_controller_alerts(windows))),
        Group("llmroute-fleet", tuple(_fleet_alerts())),
        Group(INJECTOR_GROUP, tuple(_injector_alerts(windows))),
    )


def _recordings(windows: Windows) -> Sequence[Recording]:
    five = windows.minutes5
    calls = _rate("gateway_requests_total", five, 'method="POST"')
    per_upstream = f"{PER_GATEWAY}, upstream"
    return (
        Recording("llmroute:calls:rate5m", calls),
        Recording("llmroute:calls_errors:ratio_rate5m", _error_ratio(five)),
        Recording("llmroute:calls_errors:ratio_rate30m", _error_ratio(windows.minutes30)),
        Recording("llmroute:calls_errors:ratio_rate1h", _error_ratio(windows.hour)),
        Recording("llmroute:calls_errors:ratio_rate6h", _error_ratio(windows.hours6)),
        Recording("llmroute:calls_fallback:ratio_rate5m", _share(_rate("gateway_fallback_used_total", five), calls)),
        Recording("llmroute:calls_limited:ratio_rate5m", _share(_rate("gateway_rate_limited_total", five), calls)),
        Recording(
            "llmroute:attempts_failed:ratio_rate5m",
            _share(
                _rate("gateway_upstream_requests_total", five, 'status=~"5..|error|401|403"', per_upstream),
                _rate("gateway_upstream_requests_total", five, 'status!="cancelled"', per_upstream),
            ),
        ),
        Recording(
            "llmroute:cost_usd:increase1h",
            f"sum by ({PER_GATEWAY}, model) (increase(llmroute_cost_usd_total[{windows.hour}]))",
        ),
    )


def _gateway_alerts(windows: Windows) -> Sequence[Alert]:
    five = windows.minutes5
    overhead = _rate("llmroute_overhead_seconds_bucket", windows.minutes10, by=f"{PER_GATEWAY}, le")
    fast, slow = (round(factor * (1 - OBJECTIVE), 4) for factor in (14.4, 6))
    gateway, upstream = "{{ $labels.namespace }}/{{ $labels.gateway }}", "{{ $labels.upstream }}"
    return (
        Alert(
            "LLMRouteErrorBudgetBurnsFast",
            "critical",
            "2m",
            (
                Condition("llmroute:calls_errors:ratio_rate1h", f"> {fast}"),
                Condition("llmroute:calls_errors:ratio_rate5m", f"> {fast}"),
            ),
            f"{{{{ $value | humanizePercentage }}}} of the calls to gateway {gateway} fail.",
        ),
        Alert(
            "LLMRouteErrorBudgetBurnsSlowly",
            "warning",
            "15m",
            (
                Condition("llmroute:calls_errors:ratio_rate6h", f"> {slow}"),
                Condition("llmroute:calls_errors:ratio_rate30m", f"> {slow}"),
            ),
            f"{{{{ $value | humanizePercentage }}}} of the calls to gateway {gateway} have failed for hours.",
        ),
        Alert(
            "LLMRouteUpstreamFailing",
            "warning",
            "10m",
            (Condition("llmroute:attempts_failed:ratio_rate5m", "> 0.25"),),
            f"{{{{ $value | humanizePercentage }}}} of the attempts of {gateway} at upstream {upstream} fail.",
        ),
        Alert(
            "LLMRouteCredentialRefused",
            "critical",
            "2m",
            (
                Condition(
                    _rate("gateway_upstream_requests_total", five, 'status=~"401|403"', f"{PER_GATEWAY}, upstream"),
                    "> 0",
                ),
            ),
            f"Upstream {upstream} refuses the credential of gateway {gateway}.",
        ),
        Alert(
            "LLMRouteBreakerOpen",
            "warning",
            "1m",
            (
                Condition(
                    f"max by ({PER_GATEWAY}, upstream) (min_over_time(llmroute_breaker_state[{five}]))",
                    "> 0",
                ),
            ),
            f"The breaker of upstream {upstream} has not been closed for minutes in a pod of gateway {gateway}.",
        ),
        Alert(
            "LLMRouteFallbacksHigh",
            "warning",
            "15m",
            (Condition("llmroute:calls_fallback:ratio_rate5m", "> 0.2"),),
            f"{{{{ $value | humanizePercentage }}}} of the calls to gateway {gateway} are answered by another model.",
        ),
        Alert(
            "LLMRouteStreamsTruncated",
            "warning",
            "10m",
            (
                Condition(
                    _share(_rate("llmroute_streams_truncated_total", five), "llmroute:calls:rate5m"),
                    "> 0.02",
                ),
            ),
            f"{{{{ $value | humanizePercentage }}}} of the answers of gateway {gateway} break off half-way.",
        ),
        Alert(
            "LLMRouteCallsLimited",
            "warning",
            "15m",
            (Condition("llmroute:calls_limited:ratio_rate5m", "> 0.1"),),
            f"{{{{ $value | humanizePercentage }}}} of the calls to gateway {gateway} are refused by a limit.",
        ),
        Alert(
            "LLMRouteBudgetSpent",
            "warning",
            "1m",
            (
                Condition(
                    f'min by ({PER_GATEWAY}, route, limit) (llmroute_limit_remaining{{kind="budget"}})',
                    "<= 0",
                ),
            ),
            f"A key has nothing left of budget {{{{ $labels.limit }}}} of route {{{{ $labels.route }}}}, {gateway}.",
        ),
        Alert(
            "LLMRoutePriceUnknown",
            "info",
            "1m",
            (
                Condition(
                    f"sum by ({PER_GATEWAY}, model) (increase(llmroute_price_unknown_total[{windows.hour}]))", "> 0"
                ),
            ),
            f"Budgets of gateway {gateway} count nothing for {{{{ $labels.model }}}}: its price is not known.",
        ),
        Alert(
            "LLMRouteConfigNotServed",
            "critical",
            "5m",
            (Condition(f"min by ({PER_GATEWAY}) (llmroute_config_healthy)", "== 0"),),
            f"A pod of gateway {gateway} cannot serve the newest configuration whole.",
        ),
        Alert(
            "LLMRouteRevisionsDiffer",
            "warning",
            "15m",
            (
                Condition(
                    f"count by ({PER_GATEWAY}) (count by ({PER_GATEWAY}, revision) (llmroute_config_revision_info))",
                    "> 1",
                ),
            ),
            f"Pods of gateway {gateway} have served {{{{ $value }}}} revisions for 15 minutes.",
        ),
        Alert(
            "LLMRouteGatewayDown",
            "warning",
            "5m",
            (Condition(f'min by ({PER_GATEWAY}, pod) (up{{job="{GATEWAY_JOB}"}})', "== 0"),),
            f"Prometheus cannot read the gateway in pod {{{{ $labels.pod }}}} of {gateway}.",
        ),
        Alert(
            "LLMRouteGatewaySlow",
            "warning",
            "15m",
            (
                Condition(
                    f"histogram_quantile(0.99, {overhead})",
                    "> 0.25",
                ),
            ),
            f"One in a hundred calls to gateway {gateway} spends over {{{{ $value | humanizeDuration }}}} in it.",
        ),
    )


def _controller_alerts(windows: Windows) -> Sequence[Alert]:
    ten = windows.minutes10
    return (
        Alert(
            "LLMRouteControllerDown",
            "critical",
            "5m",
            (Condition(f'sum(up{{job="{CONTROLLER.job}"}}) or vector(0)', "== 0"),),
            "No controller can be read: changed routes reach no gateway. What is served goes on.",
        ),
        Alert(
            "LLMRouteReconcilesFail",
            "warning",
            "10m",
            (Condition(f'sum(increase(llmroute_controller_reconciles_total{{result="error"}}[{ten}]))', "> 2"),),
            "The controller failed to reconcile {{ $value | humanize }} times in ten minutes.",
        ),
        Alert(
            "LLMRouteReconcileQueueStuck",
            "warning",
            "5m",
            (Condition(f"min_over_time(llmroute_controller_queue_depth[{ten}])", "> 0"),),
            "Gateways have waited for ten minutes to be reconciled, {{ $value }} at least.",
        ),
        Alert(
            "LLMRouteWatchSilent",
            "critical",
            "2m",
            (Condition("max by (watch) (llmroute_controller_watch_silence_seconds)", "> 180"),),
            "The watch of {{ $labels.watch }} has got no data for {{ $value | humanizeDuration }}.",
        ),
        Alert(
            "LLMRouteRelistOld",
            "warning",
            "5m",
            (Condition("time() - max(llmroute_controller_last_relist_timestamp_seconds)", "> 1200"),),
            "All routes were last read {{ $value | humanizeDuration }} ago.",
        ),
        Alert(
            "LLMRouteWritesNeverEnd",
            "warning",
            "30m",
            (Condition(f"sum by (kind) (rate(llmroute_controller_writes_total[{ten}]))", "> 0.5"),),
            "The controller has written {{ $labels.kind }} {{ $value | humanize }} times a second for half an hour.",
        ),
        Alert(
            "LLMRouteCertificateUnattended",
            "warning",
            "10m",
            (
                Condition(
                    f'sum(increase(llmroute_controller_injector_certificate_looks_total{{result="success"}}[{ten}]))',
                    "== 0",
                ),
            ),
            "The controller has not been able to look after the injector's certificate for ten minutes.",
        ),
    )


def _shared_state_alerts(windows: Windows) -> Sequence[Alert]:
    gateway = "{{ $labels.namespace }}/{{ $labels.gateway }}"

    def calls(decision: str) -> Condition:
        of = f'decision="{decision}"'
        return Condition(_rate("llmroute_shared_state_fallbacks_total", windows.minutes5, of), "> 0")

    return (
        Alert(
            "LLMRouteSharedStateDown",
            "warning",
            "5m",
            (Condition(f"min by ({PER_GATEWAY}) (llmroute_shared_state_up)", "== 0"),),
            f"A pod of gateway {gateway} has not reached the shared state for minutes.",
        ),
        Alert(
            "LLMRouteLimitsCountedApart",
            "warning",
            "10m",
            (calls("fail_open"),),
            f"Pods of gateway {gateway} count limits of scope Gateway each for itself: more than the limit may pass.",
        ),
        Alert(
            "LLMRouteLimitsUnavailable",
            "critical",
            "2m",
            (calls("fail_closed"),),
            f"Gateway {gateway} refuses {{{{ $value | humanize }}}} calls a second, as their limits cannot be counted.",
        ),
    )


def _fleet_alerts() -> Sequence[Alert]:
    def routes(condition: str) -> Condition:
        return Condition(
            f'sum by (namespace) (llmroute_controller_routes_in_trouble{{condition="{condition}"}})', "> 0"
        )

    return (
        Alert(
            "LLMRouteNotAccepted",
            "warning",
            "10m",
            (routes("Accepted"),),
            "{{ $value }} routes in {{ $labels.namespace }} are not accepted as they are: what went before is served.",
        ),
        Alert(
            "LLMRouteRefsUnresolved",
            "warning",
            "10m",
            (routes("ResolvedRefs"),),
            "{{ $value }} routes in {{ $labels.namespace }} name what is not there, such as a Secret.",
        ),
        Alert(
            "LLMRoutePodsBehind",
            "warning",
            "15m",
            (Condition('sum by (state) (llmroute_controller_pods{state=~"behind|unreachable"})', "> 0"),),
            "{{ $value }} pods with a gateway have been {{ $labels.state }} for a quarter of an hour.",
        ),
        Alert(
            "LLMRoutePodRestartRequired",
            "warning",
            "15m",
            (routes("PodRestartRequired"),),
            "{{ $value }} routes in {{ $labels.namespace }} need a Secret that running pods do not mount.",
        ),
        Alert(
            "LLMRoutePodsWithoutGateway",
            "warning",
            "10m",
            (Condition("sum by (namespace) (llmroute_controller_pods_without_gateway)", "> 0"),),
            "{{ $value }} pods in {{ $labels.namespace }} ask for a gateway and have none.",
        ),
    )


def _injector_alerts(windows: Windows) -> Sequence[Alert]:
    five, ten = windows.minutes5, windows.minutes10
    seconds = f"sum by (le) (rate(llmroute_injector_admission_seconds_bucket[{ten}]))"
    return (
        Alert(
            "LLMRouteInjectorDown",
            "critical",
            "5m",
            (Condition(f'sum(up{{job="{INJECTOR.job}"}}) or vector(0)', "== 0"),),
            "No injector can be read: pods that ask for a gateway cannot be made. Those that run go on.",
        ),
        Alert(
            "LLMRouteInjectorFails",
            "critical",
            "2m",
            (
                Condition(
                    f'sum by (result) (rate(llmroute_injector_admissions_total{{result=~"error|overloaded"}}[{five}]))',
                    "> 0",
                ),
            ),
            "The injector fails to answer ({{ $labels.result }}): pods that ask for a gateway are not made.",
        ),
        Alert(
            "LLMRouteInjectorSlow",
            "warning",
            "10m",
            (Condition(f"histogram_quantile(0.99, {seconds})", "> 1"),),
            "One in a hundred admissions takes the injector {{ $value | humanizeDuration }}; at 5 s pods are refused.",
        ),
        Alert(
            "LLMRouteInjectorWatchStale",
            "warning",
            "5m",
            (Condition("time() - min by (pod) (llmroute_injector_last_watch_timestamp_seconds)", "> 600"),),
            "The injector {{ $labels.pod }} hears of changed routes minutes late: it cannot watch them.",
        ),
        Alert(
            "LLMRouteInjectorInputRefused",
            "warning",
            "5m",
            (Condition("min by (input) (llmroute_injector_input_good)", "== 0"),),
            "The injector's {{ $labels.input }} is no good; the last good one is in use.",
        ),
        Alert(
            "LLMRouteCertificateExpires",
            "critical",
            "10m",
            (
                Condition(
                    "min by (pod) (llmroute_injector_certificate_expiry_timestamp_seconds) - time()",
                    f"< {14 * DAY_SECONDS}",
                ),
            ),
            "The certificate that injector {{ $labels.pod }} serves ends in {{ $value | humanizeDuration }}.",
        ),
    )


def rules_file(windows: Windows = Windows(), runbooks: str = RUNBOOKS) -> dict[str, Any]:
    """For Prometheus' `rule_files`; also a PrometheusRule's `spec`."""
    return {
        "groups": [
            {"name": group.name, "rules": [_rule(rule, runbooks) for rule in group.rules]} for group in groups(windows)
        ]
    }


def _rule(rule: Recording | Alert, runbooks: str) -> dict[str, Any]:
    match rule:
        case Recording():
            return {"record": rule.record, "expr": rule.query}
        case Alert():
            return {
                "alert": rule.name,
                "expr": rule.expression,
                "for": rule.lasting,
                "labels": {"severity": rule.severity},
                "annotations": {"summary": rule.summary, "runbook_url": runbooks.format(name=rule.name)},
            }


def prometheus_rule() -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "llmroute",
            "namespace": OPERATOR_NAMESPACE,
            "labels": {"app.kubernetes.io/part-of": "llmroute"},
        },
        "spec": rules_file(),
    }


def alerts() -> Sequence[Alert]:
    return [rule for group in groups() for rule in group.rules if isinstance(rule, Alert)]
