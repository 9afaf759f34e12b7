"""Mixed traffic with failing upstreams, leaving clients, limits that bite, a shared state that comes and goes and a
reload each second: the books agree.

The same as `python -m bench.mixed`, for seconds instead of minutes."""

from pathlib import Path

import pytest

from bench.mixed.run import Plan, run
from bench.mixed.state import restarting_state

pytestmark = pytest.mark.server


def test_each_request_has_one_answer_and_one_log_line_and_all_counts_agree(tmp_path: Path) -> None:
    plan = Plan(seconds=15, warm_up_seconds=4, mood_seconds=0.5)
    with restarting_state(tmp_path / "state") as state:
        report = run(plan, tmp_path, state.url, [state.disturb])
    assert report.faults == []
    assert report.reloads_taken >= 8
    assert report.counted_together > 0
    assert report.counted_alone > 0
    # Else the traffic was not as mixed as it is meant to be.
    expected = {"served, whole", "served, cut", "served by a fallback", "left", "400", "404", "429", "502", "503"}
    assert expected <= report.outcomes.keys()
