"""`python -m bench.mixed`: arguments, and the report. Ends with 1 where the books do not agree."""

import argparse
import sys
import tempfile
from pathlib import Path

from bench.mixed import __doc__ as about
from bench.mixed import accounts
from bench.mixed.run import Plan, Report, run
from bench.mixed.state import restarting_state

_FAULTS_SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.mixed", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=180, help="of traffic (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all chance in it (%(default)s)")
    arguments = parser.parse_args()
    plan = Plan(seconds=arguments.seconds, warm_up_seconds=arguments.seconds / 10, seed=arguments.seed)
    with (
        tempfile.TemporaryDirectory(prefix="llmroute-bench-") as folder,
        restarting_state(Path(folder) / "state") as state,
    ):
        report = run(plan, Path(folder), state.url, [state.disturb])
    print(_told(report, state.away_seconds))
    return 1 if report.faults else 0


def _told(report: Report, away_seconds: float) -> str:
    requests = report.outcomes.total()
    first, last = accounts.thirds(report.memory_kib)
    alone = report.counted_alone / max(1, report.counted_together + report.counted_alone)
    away, missed = away_seconds / report.seconds, report.missed_seconds / report.seconds
    lines = [
        "## Mixed traffic",
        "",
        f"{requests:,} requests in {report.seconds:.0f} s ({requests / report.seconds:.0f}/s: an hour of a pod that "
        f"makes {requests / 3600:.1f} calls a second), {report.reloads_taken} of {report.reloads_laid} configurations "
        f"taken up, memory {first / 1024:.1f} MiB in the first third and {last / 1024:.1f} MiB in the last.",
        "",
        "| what clients heard | requests |",
        "|---|--:|",
        *(f"| {outcome} | {count:,} |" for outcome, count in report.outcomes.most_common()),
        "",
        f"The shared state answered {report.counted_together:,} times and could not be waited for "
        f"{report.counted_alone:,} times, {alone:.0%} of the calls.",
        f"It was away for {away:.0%} of the time, and missed for {missed:.0%}.",
        "",
        "moods of the provider: " + ", ".join(f"{mood} {count}" for mood, count in report.moods.most_common()),
        "",
        *(f"- FAULT: {fault}" for fault in report.faults[:_FAULTS_SHOWN]),
    ]
    if not report.faults:
        lines.append("Each request had one answer and one log line; metrics, log, clients and providers agree.")
    elif len(report.faults) > _FAULTS_SHOWN:
        lines.append(f"- and {len(report.faults) - _FAULTS_SHOWN} more")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
