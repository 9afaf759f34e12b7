"""A call's end: whatever goes wrong in telling of it, the client has its answer and the connection goes on."""

import logging
from pathlib import Path

import httpx
import pytest

from llmroute_sidecar.pipeline import serve
from tests.gateway_process import KEY
from tests.sidecar.short_limits import running_with_short_limits

pytestmark = pytest.mark.server


def test_a_fault_in_telling_of_a_call_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(serve, "tell_metrics", broken)
    with (
        caplog.at_level(logging.ERROR),
        running_with_short_limits(tmp_path) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"x-api-key": KEY}, timeout=20) as client,
    ):
        for _ in range(2):
            answer = client.post("/v1/chat/completions", json={"model": "gpt", "messages": []})
            assert answer.status_code == 200
        assert "gateway_in_flight_requests 1.0" in client.get("/metrics").text  # the scrape itself
    assert [record.message for record in caplog.records].count("telling of a call failed") == 3
