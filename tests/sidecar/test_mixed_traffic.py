"""Mixed traffic with failing upstreams, leaving clients, limits that bite and a reload each second: the books agree.

The same as `python -m bench.mixed`, for seconds instead of minutes."""

from pathlib import Path

import pytest

from bench.mixed.run import Plan, run

pytestmark = pytest.mark.server


def test_each_request_has_one_answer_and_one_log_line_and_all_counts_agree(tmp_path: Path) -> None:
    report = run(Plan(seconds=15, warm_up_seconds=4, mood_seconds=0.5), tmp_path)
    assert report.faults == []
    assert report.reloads_taken >= 8
    # Else the traffic was not as mixed as it is meant to be.
    expected = {"served, whole", "served, cut", "served by a fallback", "left", "400", "404", "429", "502", "503"}
    assert expected <= report.outcomes.keys()
