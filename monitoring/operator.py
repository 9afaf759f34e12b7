"""The operator: do controller and injector live, and does what people apply reach its ConfigMap and its pods."""

from functools import partial

from monitoring import shapes
from monitoring.panels import Dashboard, Panel, Query, Row
from monitoring.scrape import CONTROLLER, INJECTOR
from monitoring.shapes import number, over_time

per_second = partial(shapes.per_second, chosen="")
percentiles = partial(shapes.percentiles, chosen="")


def _read_by_prometheus(title: str, description: str, job: str) -> Panel:
    return number(title, description, f'sum(up{{job="{job}"}}) or vector(0)')


def _seconds_since(metric: str) -> str:
    """The longest, where there are several processes."""
    return f"time() - min({metric})"


LIFE = Row(
    "Does the controller live?",
    (
        _read_by_prometheus(
            "Controllers that Prometheus reads", "One; none for the moment of a roll-out.", CONTROLLER.job
        ),
        number(
            "Last data of a watch",
            "Seconds ago, the quietest watch. Refused or hanging it gets none.",
            "max(llmroute_controller_watch_silence_seconds)",
            unit="s",
            warn=130,
            alarm=180,
        ),
        number(
            "Last full read",
            "Seconds ago. Every five minutes.",
            "time() - max(llmroute_controller_last_relist_timestamp_seconds)",
            unit="s",
            warn=600,
            alarm=1200,
        ),
        number("Routes", "That the controller knows.", "sum(llmroute_controller_routes)"),
    ),
)

WORK = Row(
    "Does it keep up?",
    (
        over_time(
            "Queue",
            "Gateways that wait, and those being reconciled.",
            Query("sum(llmroute_controller_queue_depth)", "wait"),
            Query("sum(llmroute_controller_reconciles_running)", "running"),
        ),
        per_second(
            "Reconciles",
            "Per second. Errors are tried again, ever more slowly.",
            "llmroute_controller_reconciles_total",
            by="result",
            unit="ops",
        ),
        percentiles(
            "Time of a reconcile", "50 and 99 of 100.", "llmroute_controller_reconcile_seconds", of=(0.5, 0.99)
        ),
        per_second(
            "Writes",
            "Per second, that the API server took. Zero while nobody changes anything.",
            "llmroute_controller_writes_total",
            by="kind",
            unit="ops",
        ),
        per_second("Full reads", "Per second.", "llmroute_controller_relists_total", by="result", unit="ops"),
        over_time(
            "Silence of watches",
            "Seconds since each got data.",
            Query("max by (watch) (llmroute_controller_watch_silence_seconds)", "{{watch}}"),
            unit="s",
        ),
    ),
)

PODS = Row(
    "Do routes and pods follow?",
    (
        over_time(
            "Routes in trouble",
            "By the condition of their status that says so; its message says what to do.",
            Query("sum by (condition) (llmroute_controller_routes_in_trouble)", "{{condition}}"),
        ),
        over_time(
            "Pods by state",
            "Pods with a gateway, by how they stand to its revision.",
            Query("sum by (state) (llmroute_controller_pods)", "{{state}}"),
            stacked=True,
        ),
        over_time(
            "Pods without a gateway",
            "They ask for one and have none: made while no injector answered, or it declined. Make them anew.",
            Query("sum by (namespace) (llmroute_controller_pods_without_gateway)", "{{namespace}}"),
        ),
        over_time(
            "Routes whose pods must be made anew",
            "A route came to need a Secret that running pods do not mount (condition PodRestartRequired).",
            Query(
                'sum by (namespace) (llmroute_controller_routes_in_trouble{condition="PodRestartRequired"})',
                "{{namespace}}",
            ),
        ),
        per_second(
            "Questions to pods",
            "Per second: the controller asks each pod's gateway for its status.",
            "llmroute_controller_pod_questions_total",
            by="result",
            unit="ops",
        ),
    ),
)

INJECTION = Row(
    "Does the injector answer?",
    (
        _read_by_prometheus(
            "Injectors that Prometheus reads", "Two, where the chart's replicas are its default.", INJECTOR.job
        ),
        number(
            "Last taken up watch of routes",
            "Seconds ago, the oldest injector's. Without it, pods are made by what was listed up to five minutes ago.",
            _seconds_since("llmroute_injector_last_watch_timestamp_seconds"),
            unit="s",
            warn=300,
            alarm=600,
        ),
        number(
            "Last full read",
            "Seconds ago, the oldest injector's. Every five minutes.",
            _seconds_since("llmroute_injector_last_relist_timestamp_seconds"),
            unit="s",
            warn=600,
            alarm=1200,
        ),
        number(
            "Files that are no good",
            "Certificate or settings: the last good ones are in use.",
            "count(llmroute_injector_input_good == 0) or vector(0)",
            warn=1,
            alarm=1,
        ),
        per_second(
            "Admissions",
            "denied: a person was told why; error and overloaded: the pod was not made, and its maker tries again.",
            "llmroute_injector_admissions_total",
            by="result",
            unit="ops",
            stacked=True,
        ),
        percentiles(
            "Time of an admission",
            "50 and 99 of 100. The API server waits five seconds, and then refuses the pod.",
            "llmroute_injector_admission_seconds",
            of=(0.5, 0.99),
        ),
        over_time(
            "Admissions under way",
            "By pod.",
            Query("sum by (pod) (llmroute_injector_admissions_in_flight)", "{{pod}}"),
        ),
    ),
)

CERTIFICATE = Row(
    "Is its certificate looked after?",
    (
        number(
            "The certificate ends",
            "What injectors serve, the first to end. It is renewed when a third of its life is left: 30 days.",
            "1000 * min(llmroute_injector_certificate_expiry_timestamp_seconds)",
            unit="dateTimeFromNow",
        ),
        per_second(
            "Looks at the certificate",
            "Per second, by the controller. Errors alone: it cannot be renewed.",
            "llmroute_controller_injector_certificate_looks_total",
            by="result",
            unit="ops",
        ),
        per_second(
            "Certificates and settings read",
            "Per second, by injectors: what had changed.",
            "llmroute_injector_loads_total",
            by="input, result",
            unit="ops",
        ),
    ),
)

OPERATOR = Dashboard(
    "llmroute-operator",
    "llmroute / Operator",
    "Controller and injector: life, queue, writes, admissions, failures.",
    (),
    (LIFE, WORK, PODS, INJECTION, CERTIFICATE),
)
