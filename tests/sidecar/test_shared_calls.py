"""Limits of scope Gateway over several gateway processes that share one real server."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmroute_sidecar.policy.limits.shared import LEASE_SECONDS
from tests.gateway_process import KEY, GatewayProcess, end, running, spec, start
from tests.provider import Provider, providing
from tests.sidecar.test_slot_calls import Gate, call, left_open
from tests.state_server import StateServer, serving_state
from tests.waiting import HANGS_AFTER, wait_until

pytestmark = pytest.mark.server

Serve = Callable[..., list[GatewayProcess]]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateServer]:
    with serving_state(tmp_path_factory.mktemp("state")) as state:
        yield state


@pytest.fixture(autouse=True)
def _empty(state: StateServer) -> None:
    state.ask("FLUSHALL")


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(12) as pool:
        yield pool


@pytest.fixture
def serve(state: StateServer, provider: Provider, tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def begin(
            number: int, *limits: dict[str, Any], url: str | None = None, at: Provider = provider, **changes: Any
        ) -> list[GatewayProcess]:
            """So many gateways of one route, all at the state server."""
            route = spec(at.url, **({"limits": list(limits)} if limits else {}), **changes)
            gateways = []
            for index in range(number):
                folder = tmp_path / str(index)
                arguments = ("--shared-state-url", url or state.url)
                gateways.append(stack.enter_context(running(folder, {"chat": route}, *arguments)))
            for gateway in gateways:
                if url is None:
                    is_up(gateway)
            return gateways

        yield begin


def is_up(gateway: GatewayProcess) -> None:
    wait_until(lambda: gateway.status()["shared_state"]["state"] == "up", "the shared state to be reached")


def is_down(gateway: GatewayProcess) -> str:
    wait_until(lambda: gateway.status()["shared_state"]["state"] == "down", "the shared state to be missed")
    reason: str = gateway.status()["shared_state"]["reason"]
    return reason


def limit(name: str, per: str = "Gateway", **kind: Any) -> dict[str, Any]:
    return {"name": name, "per": per, "scope": "Gateway", **kind}


def ask(gateway: GatewayProcess, **fields: Any) -> httpx.Response:
    return gateway.post({"model": "gpt", "messages": [], **fields})


def test_requests_are_counted_over_all_gateways(serve: Serve, state: StateServer) -> None:
    gateways = serve(2, limit("five", requests=5, window="1h"))
    answers = [ask(gateways[number % 2]) for number in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
    assert answers[0].headers["x-ratelimit-reset-requests"] == "1h0m0s"
    refused = answers[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["x-llmroute-limit"] == "five"
    assert 3500 < int(refused.headers["retry-after"]) <= 3616
    assert state.limits() == ["llmroute:{tests/default}:requests:chat/five:3600s:"]
    remaining = gateways[1].metric("llmroute_limit_remaining", route="chat", limit="five", kind="requests")
    assert remaining == 0


def test_no_key_and_nothing_of_a_call_is_in_the_state(serve: Serve, state: StateServer) -> None:
    (gateway,) = serve(
        1,
        limit("five", "Client", requests=5, window="1h"),
        limit("tokens", "Client", tokens=5000, window="1h"),
        limit("spend", "Client", budget={"usd": "1", "period": "Day"}),
        prices=[{"model": "gpt", "inputPerMillion": "1", "outputPerMillion": "1"}],
    )
    assert ask(gateway, messages=[{"role": "user", "content": "canary-prompt"}]).status_code == 200
    names = state.ask("KEYS", "*")
    assert len(names) >= 3
    told = repr([names, *(state.ask("DUMP", name) for name in names)])
    assert KEY not in told
    assert "canary" not in told


def test_what_the_pod_refuses_is_not_counted_together_and_the_other_way_round(serve: Serve) -> None:
    pod = {"name": "pod", "per": "Gateway", "requests": 2, "window": "1h", "scope": "Pod"}
    (gateway, other) = serve(2, pod, limit("all", requests=3, window="1h"))
    assert [ask(gateway).status_code for _ in range(3)] == [200, 200, 429]
    assert [ask(other).status_code for _ in range(3)] == [200, 429, 429]
    assert other.metric("llmroute_limit_remaining", route="chat", limit="pod", kind="requests") == 1


def test_tokens_are_settled_by_what_was_used(serve: Serve) -> None:
    gateways = serve(2, limit("tokens", tokens=1000, window="1h"))
    for number in range(4):  # each is thought to use some 500, and uses 2
        assert ask(gateways[number % 2], max_tokens=500).status_code == 200
        wait_until(
            lambda: int(ask(gateways[0], max_tokens=1).headers["x-ratelimit-remaining-tokens"]) > 900,
            "the tokens to be given back",
        )


def test_slots_are_held_over_all_gateways_and_come_back(
    serve: Serve, gate: Gate, pool: ThreadPoolExecutor, state: StateServer
) -> None:
    with providing(gate) as provider:
        one, two = serve(2, limit("slots", concurrency=2), at=provider)
        calls = [pool.submit(call, one, "a"), pool.submit(call, two, "b")]
        gate.has("a", "b")
        assert call(one, "c").json()["error"]["type"] == "concurrency"
        leaving = left_open(two, "b2")  # refused, too
        leaving.close()
        gate.let_go(provider, "b")
        assert calls[1].result().status_code == 200
        third = pool.submit(call, one, "d")
        gate.has("a", "d")
        for name in ("a", "d"):
            gate.let_go(provider, name)
        assert [each.result().status_code for each in (calls[0], third)] == [200, 200]
        wait_until(lambda: state.limits() == [], "all slots to be free")


def test_a_client_that_leaves_gives_its_slot_back(
    serve: Serve, gate: Gate, pool: ThreadPoolExecutor, state: StateServer
) -> None:
    with providing(gate) as provider:
        (gateway,) = serve(1, limit("slots", concurrency=1), at=provider)
        leaving = left_open(gateway, "a")
        gate.has("a")
        leaving.close()
        wait_until(lambda: state.limits() == [], "the slot to be free")


def test_who_finds_no_slot_waits_for_one_of_any_gateway(serve: Serve, gate: Gate, pool: ThreadPoolExecutor) -> None:
    queue = {"size": 1, "timeout": "10m"}
    with providing(gate) as provider:
        one, two = serve(2, limit("slots", concurrency=1, queue=queue), at=provider)
        first = pool.submit(call, one, "a")
        gate.has("a")
        second = pool.submit(call, two, "b")
        waiting = {"route": "chat", "limit": "slots"}
        wait_until(lambda: two.metric("llmroute_limit_waiting", **waiting) == 1, "a call to be in line")
        assert call(two, "c").status_code == 429
        gate.let_go(provider, "a")
        gate.has("b")
        gate.let_go(provider, "b")
        assert [each.result().status_code for each in (first, second)] == [200, 200]


def test_slots_of_a_gateway_that_died_come_back(
    serve: Serve, gate: Gate, pool: ThreadPoolExecutor, state: StateServer
) -> None:
    with providing(gate) as provider:
        one, two = serve(2, limit("slots", concurrency=1), at=provider)
        lost = left_open(one, "a")
        gate.has("a")
        one.process.kill()
        gate.has()
        lost.close()
        assert call(two, "b").status_code == 429
        (key,) = state.limits()
        (member, till) = state.ask("ZRANGE", key, 0, -1, "WITHSCORES")
        second, micro = state.ask("TIME")
        assert float(till) <= int(second) * 1e6 + int(micro) + LEASE_SECONDS * 1e6
        state.ask("ZINCRBY", key, -round(LEASE_SECONDS * 1e6), member)  # as if so much time had passed
        answer = pool.submit(call, two, "b")
        gate.has("b")
        gate.let_go(provider, "b")
        assert answer.result().status_code == 200


def test_a_slot_that_is_held_for_longer_than_a_lease_stays_held(
    serve: Serve, gate: Gate, pool: ThreadPoolExecutor, state: StateServer
) -> None:
    with providing(gate) as provider:
        (gateway,) = serve(1, limit("slots", concurrency=1), at=provider)
        first = pool.submit(call, gateway, "a")
        gate.has("a")
        (key,) = state.limits()
        (member, began) = state.ask("ZRANGE", key, 0, -1, "WITHSCORES")
        wait_until(lambda: float(state.ask("ZSCORE", key, member)) > float(began), "the lease to be renewed")
        gate.let_go(provider, "a")
        assert first.result().status_code == 200


BUDGET = {"usd": "1", "period": "Month"}
PRICES = [{"model": "*", "inputPerMillion": "0", "outputPerMillion": "200000"}]  # 0.20 dollars for a token


def test_budgets_outlive_the_gateways_and_the_server(
    serve: Serve, state: StateServer, tmp_path: Path, provider: Provider
) -> None:
    (gateway,) = serve(1, limit("spend", budget=BUDGET), prices=PRICES)
    assert [ask(gateway, max_tokens=1).status_code for _ in range(5)] == [200] * 5
    assert ask(gateway, max_tokens=1).json()["error"]["code"] == "insufficient_quota"
    gateway.terminate()
    assert gateway.exit_code() == 0
    state.kill()
    state.start()
    again = start(gateway.folder, "--shared-state-url", state.url)
    try:
        is_up(again)
        refused = ask(again, max_tokens=1)
        assert refused.json()["error"]["code"] == "insufficient_quota"
        assert refused.headers["x-llmroute-limit"] == "spend"
    finally:
        end(again)


def test_an_upstreams_shared_limit_makes_the_next_candidate_serve(serve: Serve, provider: Provider) -> None:
    limits = [limit("first", per="Upstream", requests=3, window="1h")]
    upstreams = [{"name": "a", "url": provider.url}, {"name": "b", "url": "mock://local"}]
    targets = [{"upstream": "a"}, {"upstream": "b", "weight": 0}]
    one, two = serve(2, *limits, upstreams=upstreams, models=[{"name": "gpt", "targets": targets}])
    answers = [ask((one, two)[number % 2]) for number in range(8)]
    served = [answer.headers.get("x-llmroute-upstream") for answer in answers]
    assert served == ["a", "a", "a", "b", "b", "b", None, None]
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"


def test_one_gateway_that_opens_a_breaker_tells_the_others(serve: Serve) -> None:
    breaker = {"maxFailures": 1, "reset": "1h", "scope": "Gateway"}
    broken = {"name": "u", "url": "http://127.0.0.1:9/v1", "breaker": breaker}
    models = [{"name": "gpt", "targets": [{"upstream": "u"}]}]
    one, two = serve(2, upstreams=[broken], models=models)
    assert ask(one).status_code == 502
    wait_until(lambda: two.metric("llmroute_breaker_state", upstream="u") == 2, "the other breaker to open")
    assert ask(two).json()["error"]["code"] == "circuit_open"


# --- exactness


def test_gateways_together_admit_the_limit_and_no_more_in_any_window(serve: Serve) -> None:
    """However fast calls come: of those that were surely admitted within one window (sent after its begin, answered
    before its end) there are never more than the limit; and none is refused but where the window before it, which is
    up to a 256th too long, may have had as many as the limit, so that all of it can be used."""
    number, window, seconds = 40, 2.0, 5.0
    body = json.dumps({"model": "gpt", "messages": []}).encode()
    upstreams = [{"name": "m", "url": "mock://local?tokens=1"}]
    models = [{"name": "gpt", "targets": [{"upstream": "m"}]}]
    gateways = serve(3, limit("all", requests=number, window=f"{window:.0f}s"), upstreams=upstreams, models=models)
    until = time.monotonic() + seconds

    def work(gateway: GatewayProcess) -> Sequence[tuple[int, float, float]]:
        """Status of each call, and when it was sent and answered."""
        calls = []
        with httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=HANGS_AFTER) as client:
            while (sent := time.monotonic()) < until:
                status = client.post(gateway.url + "/v1/chat/completions", content=body).status_code
                calls.append((status, sent, time.monotonic()))
        return calls

    with ThreadPoolExecutor(6) as pool:
        calls = [call for each in pool.map(work, gateways * 2) for call in each]
    for gateway in gateways:
        assert gateway.metric("llmroute_shared_state_fallbacks_total", decision="fail_open") == 0
    admitted = [(sent, answered) for status, sent, answered in calls if status == 200]
    refused = [(sent, answered) for status, sent, answered in calls if status == 429]
    assert refused
    assert len(admitted) + len(refused) == len(calls)
    for _, begin in admitted:
        assert sum(sent >= begin and answered < begin + window for sent, answered in admitted) <= number
    for asked, told in refused:
        begin = asked - window * 257 / 256
        assert sum(answered > begin and sent < told for sent, answered in admitted) >= number
