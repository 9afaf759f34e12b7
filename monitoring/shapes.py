"""The shapes that panels have again and again: a share as it is now, a rate over time, percentiles, what grew.

A dashboard says what is asked and what a bad answer means; how that looks is said here, once.
"""

from collections.abc import Sequence

from monitoring.panels import Panel, Query, Unit
from monitoring.queries import CHOSEN, increase, quantile, rate, share


def share_now(
    title: str, description: str, part: str, whole: str, *, warn: float, alarm: float, width: int = 6
) -> Panel:
    """A number from 0 to 100 %, yellow and red where there is too much of it."""
    query = Query(share(part, whole))
    return Panel(title, description, (query,), "percentunit", "number", width, warn, alarm)


def number(
    title: str,
    description: str,
    query: str,
    *,
    unit: Unit = "short",
    warn: float | None = None,
    alarm: float | None = None,
    width: int = 6,
) -> Panel:
    return Panel(title, description, (Query(query),), unit, "number", width, warn, alarm)


def per_second(
    title: str,
    description: str,
    metric: str,
    *matchers: str,
    by: str,
    legend: str = "",
    unit: Unit = "reqps",
    stacked: bool = False,
    chosen: str = CHOSEN,
) -> Panel:
    """A counter's rate, a line for each combination of `by`, named after it where `legend` says nothing else."""
    query = Query(rate(metric, *matchers, by=by, chosen=chosen), legend or named(by))
    return Panel(title, description, (query,), unit, "areas" if stacked else "lines")


def percentiles(
    title: str,
    description: str,
    histogram: str,
    *matchers: str,
    of: Sequence[float],
    by: str = "",
    chosen: str = CHOSEN,
) -> Panel:
    """Of a histogram of seconds. Where there is one percentile of each `by`, the title says which."""
    queries = [
        Query(quantile(one, histogram, *matchers, by=by, chosen=chosen), _percentile_named(one, by, len(of)))
        for one in of
    ]
    return Panel(title, description, tuple(queries), "s")


def grown(title: str, description: str, metric: str, *, by: str, unit: Unit = "short", chosen: str = CHOSEN) -> Panel:
    """A table of what a counter grew by in the time that is shown."""
    return Panel(title, description, (Query(increase(metric, by=by, chosen=chosen)),), unit, "table")


def over_time(title: str, description: str, *queries: Query, unit: Unit = "short", stacked: bool = False) -> Panel:
    return Panel(title, description, queries, unit, "areas" if stacked else "lines")


def table(title: str, description: str, *queries: str, unit: Unit = "short") -> Panel:
    return Panel(title, description, tuple(map(Query, queries)), unit, "table")


def named(by: str) -> str:
    """A legend of the labels' values."""
    return " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",")) if by else ""


def _percentile_named(one: float, by: str, count: int) -> str:
    number = f"{100 * one:g}"
    if not by:
        return f"{number} of 100"
    return named(by) if count == 1 else f"{named(by)} {number}"
