"""All kinds of limits under a crowd: calls that succeed, fail, stream, wait in line, leave at any moment. When it is
quiet again every slot is back, nothing is reserved any more, and what limits hold is what metrics told."""

import json
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.waiting import wait_until

pytestmark = pytest.mark.server
CALLS = 240
BUDGET, TOKENS = 1000, 10**9


def left(gateway: GatewayProcess, limit: str, kind: str) -> float:
    return gateway.metric("llmroute_limit_remaining", route="chat", limit=limit, kind=kind)


def visit(gateway: GatewayProcess, seed: int) -> None:
    """One client: calls, and leaves after some of the answer, all of it, or none."""
    choice = random.Random(seed)
    body = json.dumps(
        {
            "model": choice.choice(["gpt-4o", "gpt-4o-mini", "shaky"]),
            "stream": choice.random() < 0.6,
            "messages": [{"role": "user", "content": "x" * choice.randrange(2000)}],
            **({"max_tokens": choice.randrange(1, 200)} if choice.random() < 0.5 else {}),
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
    )
    stays_for = choice.choice([0, 1, 600, 2000, 10**9])
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as client:
        client.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        while stays_for > 0:
            piece = client.recv(min(65536, stays_for))
            if not piece:
                return
            stays_for -= len(piece)


def test_when_it_is_quiet_again_nothing_is_held_and_all_is_accounted_for(tmp_path: Path) -> None:
    chat = spec(
        "mock://local",
        upstreams=[
            upstream("steady", "mock://local?latency=5ms&tokens=30&gap=1ms"),
            upstream("weak", "mock://local?fail=0.5&tokens=20", breaker={"maxFailures": 1000, "reset": "1s"}),
        ],
        models=[
            {"name": "gpt-4o", "targets": [{"upstream": "steady"}]},
            {"name": "gpt-4o-mini", "targets": [{"upstream": "weak"}], "fallbacks": ["gpt-4o"]},
            {"name": "shaky", "targets": [{"upstream": "weak", "model": "gpt-4o"}]},
        ],
        limits=[
            {"name": "slots", "per": "Gateway", "concurrency": 4, "queue": {"size": 8, "timeout": "500ms"}},
            {"name": "each", "per": "Upstream", "concurrency": 3},
            {"name": "tokens", "per": "Gateway", "tokens": TOKENS, "window": "24h"},
            {"name": "calls", "per": "Gateway", "requests": 1_000_000, "window": "24h"},
            {"name": "spend", "per": "Gateway", "budget": {"usd": str(BUDGET), "period": "Month"}},
        ],
    )
    with running(tmp_path, {"chat": chat}) as gateway:
        with ThreadPoolExecutor(16) as crowd:
            list(crowd.map(lambda seed: visit(gateway, seed), range(CALLS)))
        wait_until(lambda: len(requests_in(gateway)) == CALLS, "a log line for each call")
        wait_until(lambda: left(gateway, "each", "concurrency") == 3, "each attempt to be over")
        assert left(gateway, "slots", "concurrency") == 4
        assert gateway.metric("llmroute_limit_waiting", route="chat", limit="slots") == 0
        told = gateway.get("/metrics").text.splitlines()
        spent = sum(float(line.split()[-1]) for line in told if line.startswith("llmroute_cost_usd_total{"))
        used = sum(float(line.split()[-1]) for line in told if line.startswith("llmroute_tokens_total{"))
        assert left(gateway, "spend", "budget") == pytest.approx(BUDGET - spent, abs=1e-9)
        assert left(gateway, "tokens", "tokens") == TOKENS - used
        lines = requests_in(gateway)
        # Those refused or left in line were not; those that found every upstream full were, as requests.
        admitted = [line for line in lines if line["attempts"] or line.get("tried")]
        assert left(gateway, "calls", "requests") == 1_000_000 - len(admitted)
        assert {line["status"] for line in lines} >= {200, 499, 502}
        assert all(line.get("exc_info") is None for line in lines)


def requests_in(gateway: GatewayProcess) -> list[dict[str, object]]:
    return [line for line in gateway.lines if line["message"] == "request" and line["method"] == "POST"]
