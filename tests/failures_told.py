"""What a run says of the tests that fail: a line as soon as one does, and at its end each reason once.

Whoever reads CI sees the end of its output, or what there was until it was stopped. Tracebacks are pytest's own.
"""

from collections.abc import Mapping, Sequence

import pytest

_SHOWN = 3
"""Tests that are named for one reason."""
_WIDTH = 300


class FailuresTold:
    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._said: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A reason that was said before is not said again."""
        if report.failed and (reason := reason_of(report)) not in self._said:
            self._said.add(reason)
            self._reporter.ensure_newline()
            self._reporter.write_line(f"FAILED {report.nodeid}: {reason}")

    def pytest_terminal_summary(self) -> None:
        reports = [report for kind in ("failed", "error") for report in self._reporter.stats.get(kind, ())]
        if reports:
            self._reporter.write_sep("=", "what failed, and why")
            for line in told(by_reason(reports)):
                self._reporter.write_line(line)


def by_reason(reports: Sequence[pytest.TestReport | pytest.CollectReport]) -> Mapping[str, Sequence[str]]:
    """The tests for each reason, in the order in which they failed."""
    found: dict[str, list[str]] = {}
    for report in reports:
        found.setdefault(reason_of(report), []).append(report.nodeid)
    return found


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The exception, in a line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = [line.strip() for line in (crash.message if crash else str(report.longrepr)).splitlines() if line.strip()]
    reason = (lines[0] if crash else lines[-1]) if lines else "no reason was given"
    when = getattr(report, "when", "call")
    return reason[:_WIDTH] + ("" if when == "call" else f" (at its {when})")


def told(tests: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The reason that most tests failed for is the last."""
    lines: list[str] = []
    for reason, names in sorted(tests.items(), key=lambda item: len(item[1])):
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        lines += [f"FAILED {', '.join(names[:_SHOWN])}{more}", f"       {reason}"]
    return lines
