"""The operator: does the controller live, and does what people apply reach its ConfigMap."""

from monitoring.panels import Dashboard, Panel, Query, Row
from monitoring.queries import quantile, rate
from monitoring.scrape import CONTROLLER_JOB

LIFE = Row(
    "Does it live?",
    (
        Panel(
            "Controllers that Prometheus reads",
            "One; none for the moment of a roll-out.",
            (Query(f'sum(up{{job="{CONTROLLER_JOB}"}}) or vector(0)'),),
            kind="number",
            width=6,
        ),
        Panel(
            "Last sign of life of a watch",
            "Seconds ago, the quietest watch. At 180 the liveness probe has the pod restarted.",
            (Query("max(llmroute_controller_watch_silence_seconds)"),),
            unit="s",
            kind="number",
            width=6,
            warn=130,
            alarm=180,
        ),
        Panel(
            "Last full read",
            "Seconds ago. Every five minutes.",
            (Query("time() - max(llmroute_controller_last_relist_timestamp_seconds)"),),
            unit="s",
            kind="number",
            width=6,
            warn=600,
            alarm=1200,
        ),
        Panel(
            "Routes", "That the controller knows.", (Query("sum(llmroute_controller_routes)"),), kind="number", width=6
        ),
    ),
)

WORK = Row(
    "Does it keep up?",
    (
        Panel(
            "Queue",
            "Gateways that wait, and those being reconciled.",
            (
                Query("sum(llmroute_controller_queue_depth)", "wait"),
                Query("sum(llmroute_controller_reconciles_running)", "running"),
            ),
        ),
        Panel(
            "Reconciles",
            "Per second. Errors are tried again, ever more slowly.",
            (Query(rate("llmroute_controller_reconciles_total", by="result", chosen=""), "{{result}}"),),
            unit="ops",
        ),
        Panel(
            "Time of a reconcile",
            "50 and 99 of 100.",
            (
                Query(quantile(0.5, "llmroute_controller_reconcile_seconds", chosen=""), "50 of 100"),
                Query(quantile(0.99, "llmroute_controller_reconcile_seconds", chosen=""), "99 of 100"),
            ),
            unit="s",
        ),
        Panel(
            "Writes",
            "Per second, that the API server took. Zero while nobody changes anything.",
            (Query(rate("llmroute_controller_writes_total", by="kind", chosen=""), "{{kind}}"),),
            unit="ops",
        ),
        Panel(
            "Full reads",
            "Per second.",
            (Query(rate("llmroute_controller_relists_total", by="result", chosen=""), "{{result}}"),),
            unit="ops",
        ),
        Panel(
            "Silence of watches",
            "Seconds since each showed a sign of life.",
            (Query("max by (watch) (llmroute_controller_watch_silence_seconds)", "{{watch}}"),),
            unit="s",
        ),
    ),
)

PODS = Row(
    "Do pods follow?",
    (
        Panel(
            "Pods by state",
            "Pods with a gateway, by how they stand to its revision.",
            (Query("sum by (state) (llmroute_controller_pods)", "{{state}}"),),
            kind="areas",
        ),
        Panel(
            "Pods without a gateway",
            "They ask for one and have none: made while no injector answered, or it declined. Make them anew.",
            (Query("sum by (namespace) (llmroute_controller_pods_without_gateway)", "{{namespace}}"),),
        ),
        Panel(
            "Questions to pods",
            "Per second: the controller asks each pod's gateway for its status.",
            (Query(rate("llmroute_controller_pod_questions_total", by="result", chosen=""), "{{result}}"),),
            unit="ops",
        ),
    ),
)

OPERATOR = Dashboard(
    "llmroute-operator", "llmroute / Operator", "The controller: life, queue, writes, failures.", (), (LIFE, WORK, PODS)
)
