"""The few kinds of panel that our dashboards have, and the dashboard's frame: data source, variables, links.

A panel's title is the question it answers; its description says what a bad answer means. Queries keep to `$namespace`
and `$gateway`, and to `$__rate_interval` for rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, StackingConfig, VizLegendOptions
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Unit = Literal["short", "percentunit", "s", "reqps", "currencyUSD", "bytes", "dateTimeFromNow", "ops"]
DATA_SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
GRID = 24
HEIGHT = 8


@dataclass(frozen=True, slots=True)
class Query:
    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    description: str
    queries: tuple[Query, ...]
    unit: Unit = "short"
    kind: Literal["lines", "areas", "number", "table"] = "lines"
    """Over time; over time and stacked; as it is now; as it is now, a row a series."""
    width: int = 8
    warn: float | None = None
    """From here on the number is yellow."""
    alarm: float | None = None
    """From here on it is red."""


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    description: str
    variables: tuple[str, ...]
    """Of namespace, gateway, pod: each is a choice among what there is, within those before it."""
    rows: tuple[Row, ...]


def json_of(board: Dashboard) -> str:
    """As Grafana imports and provisions it."""
    made = (
        build.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["llmroute"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("llmroute")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags(["llmroute"])
            .as_dropdown(True)
        )
        .with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for number, name in enumerate(board.variables):
        made = made.with_variable(_variable(name, board.variables[:number]))
    for row in board.rows:
        made = made.with_row(build.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _variable(name: str, before: Sequence[str]) -> build.QueryVariable:
    within = ", ".join(f'{one}=~"${one}"' for one in before)
    series = f"llmroute_build_info{{{within}}}" if within else "llmroute_build_info"
    return (
        build.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATA_SOURCE)
        .query(f"label_values({series}, {name})")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> Builder[dashboard.Panel]:
    match panel.kind:
        case "number":
            return _number(panel)
        case "table":
            return _table(panel)
        case "lines" | "areas":
            return _over_time(panel)


def _targets(panel: Panel, *, now: bool = False) -> list[prometheus.Dataquery]:
    targets = []
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().ref_id(chr(ord("A") + number)).datasource(DATA_SOURCE).expr(query.expression)
        target = target.legend_format(query.legend) if query.legend else target
        targets.append(target.instant() if now else target.range())
    return targets


def _thresholds(panel: Panel) -> build.ThresholdsConfig:
    steps = [dashboard.Threshold(value=None, color="green")]
    if panel.warn is not None:
        steps.append(dashboard.Threshold(value=panel.warn, color="yellow"))
    if panel.alarm is not None:
        steps.append(dashboard.Threshold(value=panel.alarm, color="red"))
    return build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _over_time(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(DATA_SOURCE)
        .unit(panel.unit)
        .min(0)
        .span(panel.width)
        .height(HEIGHT)
        .fill_opacity(30 if panel.kind == "areas" else 8)
        .legend(
            VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
            .show_legend(True)
        )
    )
    if panel.kind == "areas":
        made = made.stacking(StackingConfig().mode(common.StackingMode.NORMAL))
    for target in _targets(panel):
        made = made.with_target(target)
    return made


def _number(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(DATA_SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(HEIGHT // 2)
        .thresholds(_thresholds(panel))
        .color_mode(common.BigValueColorMode.BACKGROUND)
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    )
    for target in _targets(panel):
        made = made.with_target(target)
    return made


def _table(panel: Panel) -> table.Panel:
    made = (
        table.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(DATA_SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(HEIGHT)
        .show_header(True)
    )
    for target in _targets(panel, now=True):
        made = made.with_target(target.format(PromQueryFormat.TABLE))
    return made
