"""Where calls go, over sockets: shares by weight, sessions, retries within their budget, and what the answer tells."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from llmroute_sidecar.pipeline import attempt
from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream
from tests.provider import Behaviour, Provider, ProviderRequest, answers, completion, providing, response
from tests.sidecar.short_limits import running_with_short_limits

pytestmark = pytest.mark.server
NAMES = ("a", "b", "c", "d")
DEAD = "http://127.0.0.1:1"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """With upstreams a to d; each test brings its models."""
    with running(tmp_path_factory.mktemp("gateway"), {"chat": route(provider)}) as gateway:
        yield gateway


def route(provider: Provider, *models: dict[str, Any], **urls: str) -> dict[str, Any]:
    upstreams = [
        upstream(name, urls.get(name, provider.url), breaker={"maxFailures": 2, "reset": "1h"}) for name in NAMES
    ]
    return spec(provider.url, upstreams=upstreams, models=list(models) or [model("gpt", a=1)])


def model(name: str, *fallbacks: str, **weights: int) -> dict[str, Any]:
    targets = [{"upstream": upstream, "weight": weight} for upstream, weight in weights.items()]
    return {"name": name, "targets": targets, **({"fallbacks": list(fallbacks)} if fallbacks else {})}


def ask(gateway: GatewayProcess, name: str, **headers: str) -> str:
    """Which upstream served."""
    answer = gateway.post({"model": name, "messages": []}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-llmroute-upstream"]


def served(gateway: GatewayProcess, name: str, calls: int) -> dict[str, int]:
    with ThreadPoolExecutor(8) as threads:
        return dict(sorted(Counter(threads.map(lambda _: ask(gateway, name), range(calls))).items()))


# -- shares ------------------------------------------------------------------------------------------------------------


def test_shares_are_exact_over_a_thousand_calls_eight_at_a_time(gateway: GatewayProcess, provider: Provider) -> None:
    gateway.write({"chat": route(provider, model("thousand", a=7, b=2, c=1, d=0))})
    assert served(gateway, "thousand", 1000) == {"a": 700, "b": 200, "c": 100}


def test_shares_are_exact_over_reloads_that_do_not_change_them(gateway: GatewayProcess, provider: Provider) -> None:
    shared = model("over-reloads", a=2, b=1)
    gateway.write({"chat": route(provider, shared)})
    had: Counter[str] = Counter()
    for number in range(3):
        gateway.write({"chat": route(provider, shared, model(f"another-{number}", a=1))})
        had[ask(gateway, "over-reloads")] += 1
    assert had == {"a": 2, "b": 1}


def test_a_lost_targets_share_is_spread_by_weight_and_a_call_that_finds_it_open_does_not_wait_for_it(
    gateway: GatewayProcess, provider: Provider
) -> None:
    gateway.write({"chat": route(provider, model("lost", a=4, b=4, c=2), b=DEAD)})
    served(gateway, "lost", 20)  # opens b's breaker
    before = gateway.metric("gateway_circuit_open_total", upstream="b")
    gateway.write({"chat": route(provider, model("lost", a=40, b=40, c=20), b=DEAD)})  # a wheel that begins anew
    assert served(gateway, "lost", 150) == {"a": 100, "c": 50}
    assert gateway.metric("gateway_circuit_open_total", upstream="b") == before + 60


def test_weight_0_serves_when_all_others_fail_and_before_the_fallbacks(
    gateway: GatewayProcess, provider: Provider
) -> None:
    chat = model("reserve", "spare", a=1, b=1, c=0)
    gateway.write({"chat": route(provider, chat, model("spare", d=1), a=DEAD, b=DEAD)})
    assert [ask(gateway, "reserve") for _ in range(6)] == ["c"] * 6


# -- sessions ----------------------------------------------------------------------------------------------------------


def sticky(name: str, **weights: int) -> dict[str, Any]:
    return {**model(name, **weights), "sticky": {"header": "X-Session-Id"}}


def by_session(gateway: GatewayProcess, name: str) -> dict[str, str]:
    return {f"s{n}": ask(gateway, name, **{"x-session-id": f"s{n}"}) for n in range(60)}


def test_a_session_stays_with_its_target_and_a_new_target_takes_only_its_share(
    gateway: GatewayProcess, provider: Provider
) -> None:
    gateway.write({"chat": route(provider, sticky("session", a=1, b=1, c=1))})
    before = by_session(gateway, "session")
    assert by_session(gateway, "session") == before
    assert set(before.values()) == {"a", "b", "c"}
    gateway.write({"chat": route(provider, sticky("session", a=1, b=1, c=1, d=1))})
    moved = {upstream for session, upstream in by_session(gateway, "session").items() if upstream != before[session]}
    assert moved == {"d"}
    assert served(gateway, "session", 8) == {"a": 2, "b": 2, "c": 2, "d": 2}, "no session: by weight"


def test_a_session_falls_to_one_sibling_while_its_target_cannot_serve(
    gateway: GatewayProcess, provider: Provider
) -> None:
    gateway.write({"chat": route(provider, sticky("falls", a=1, c=1, d=1))})
    before = by_session(gateway, "falls")
    gateway.write({"chat": route(provider, sticky("falls", a=1, c=1, d=1), c=f"{DEAD}/else")})
    during = by_session(gateway, "falls")
    assert during == by_session(gateway, "falls")
    assert {session for session in before if before[session] != during[session]} == {
        session for session, upstream in before.items() if upstream == "c"
    }
    gateway.write({"chat": route(provider, sticky("falls", a=1, c=1, d=1))})
    assert by_session(gateway, "falls") == before


# -- retries -----------------------------------------------------------------------------------------------------------


def retrying(url: str, attempts: int = 3, **of_upstream: Any) -> dict[str, Any]:
    bad = upstream("bad", url, breaker={"maxFailures": 1000}, **of_upstream)
    models = [
        {"name": "gpt", "targets": [{"upstream": "bad"}], "retry": {"attempts": attempts, "backoff": "1ms"}},
        {"name": "twice", "targets": [{"upstream": "bad"}, {"upstream": "bad"}]},
        {"name": "smaller", "targets": [{"upstream": "bad"}, {"upstream": "bad", "model": "mini"}]},
    ]
    return spec(url, upstreams=[bad], models=models)


def test_retries_never_exceed_their_budget_however_often_an_upstream_fails(tmp_path: Path) -> None:
    with (
        providing(answers(response(500, b"{}"))) as bad,
        running(tmp_path, {"chat": retrying(bad.url, retryBudget={"percent": 20, "burst": 5})}) as gateway,
    ):
        for _ in range(100):
            assert gateway.post({"model": "gpt"}).status_code == 502
        retries = len(bad.requests) - 100
        assert 20 <= retries <= 5 + 20
        assert gateway.metric("llmroute_retries_refused_total", upstream="bad") > 0


@pytest.mark.parametrize(("name", "tries"), [("twice", 1), ("smaller", 2)])
def test_the_same_target_again_is_a_retry_another_model_of_the_upstream_is_not(
    tmp_path: Path, name: str, tries: int
) -> None:
    with (
        providing(answers(response(500, b"{}"))) as bad,
        running(tmp_path, {"chat": retrying(bad.url, retryBudget={"percent": 0, "burst": 0})}) as gateway,
    ):
        answer = gateway.post({"model": name})
        assert (answer.status_code, answer.headers["x-llmroute-attempts"]) == (502, str(tries))
        assert len(bad.requests) == tries
        reasons = [attempt["reason"] for attempt in answer.json()["error"]["attempts"]]
        assert reasons == ["server_error", "retry_budget_spent" if tries == 1 else "server_error"]


@pytest.mark.parametrize(("asked", "tries"), [("retry-after-ms: 300", 2), ("retry-after: 31", 1)])
def test_a_retry_waits_for_what_the_upstream_asked_or_is_not_made(tmp_path: Path, asked: str, tries: int) -> None:
    came: list[float] = []

    async def overloaded(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        came.append(time.monotonic())
        writer.write(response(503, b"{}", asked))

    with providing(overloaded) as bad, running(tmp_path, {"chat": retrying(bad.url, attempts=2)}) as gateway:
        answer = gateway.post({"model": "gpt"})
        assert answer.headers["x-llmroute-attempts"] == str(tries)
        assert len(came) == tries
        assert all(later - earlier >= 0.29 for earlier, later in pairwise(came))


def test_a_call_that_an_upstream_dropped_after_a_while_is_not_sent_again_unasked(tmp_path: Path) -> None:
    """A kept connection that had died unseen is replaced; one that dies with the call in hand has failed."""

    calls: list[int] = []

    async def drops_the_second(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        if not calls:
            calls.append(request.connection)
            writer.write(response(200, completion()))
            return
        calls.append(request.connection)
        await asyncio.sleep(1.2)
        writer.close()

    with providing(drops_the_second) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        assert gateway.post({"model": "gpt"}).status_code == 200
        dropped = gateway.post({"model": "gpt"})
        assert dropped.json()["error"]["attempts"][0]["reason"] == "connection_lost"
        assert dropped.headers["x-llmroute-attempts"] == "1"
        assert calls == [0, 0]


def test_no_pause_goes_beyond_the_calls_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upstream asks for 20 s, which a retry would wait for, but the call has less left: the fallback serves."""
    monkeypatch.setattr(attempt, "CALL_SECONDS", 10.0)
    with providing(answers(response(503, b"{}", "retry-after: 20"))) as bad, providing() as good:
        chat = retrying(bad.url, attempts=2, timeouts={"request": "5s"})
        chat["upstreams"].append(upstream("good", good.url, timeouts={"request": "5s"}))
        chat["models"][0]["fallbacks"] = ["spare"]
        chat["models"].append(model("spare", good=1))
        with running_with_short_limits(tmp_path, route=chat) as port:
            url, headers = f"http://127.0.0.1:{port}/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
            answer = httpx.post(url, json={"model": "gpt"}, headers=headers, timeout=15)
    assert (answer.status_code, answer.headers["x-fallback-model"]) == (200, "spare")
    assert len(bad.requests) == 1


# -- what the answer tells ---------------------------------------------------------------------------------------------

FORGED = ("x-llmroute-upstream: evil", "x-llmroute-attempts: 99", "x-llmroute-origin: evil", "x-llmroute-limit: evil")


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_an_upstream_cannot_say_where_a_call_went(gateway: GatewayProcess, provider: Provider, streamed: bool) -> None:
    forge: Behaviour = answers(response(200, completion(), "x-fallback-model: evil", "X-LLMRoute-Else: evil", *FORGED))
    with providing(forge) as forger:
        gateway.write({"chat": route(provider, model("forged", a=1), a=forger.url)})
        answer = gateway.post({"model": "forged", "stream": streamed})
    told = {name: value for name, value in answer.headers.items() if "llmroute" in name or "fallback" in name}
    assert told == {"x-llmroute-origin": "upstream", "x-llmroute-upstream": "a", "x-llmroute-attempts": "1"}
    assert "evil" not in str(answer.headers)


def test_every_answer_of_a_call_that_was_tried_tells_where_it_went_and_no_other_does(
    gateway: GatewayProcess, provider: Provider
) -> None:
    chat = {**model("tried", "spare", a=1, b=0), "retry": {"attempts": 2, "backoff": "1ms"}}
    models = [chat, model("spare", c=1), model("alone", a=1)]
    gateway.write({"chat": route(provider, *models, a=f"{DEAD}/x", b=f"{DEAD}/y")})

    def told(name: str, **more: Any) -> tuple[int, str | None, str | None, str | None]:
        answer = gateway.post({"model": name, "messages": []}, **more)
        headers = answer.headers
        upstream, attempts = headers.get("x-llmroute-upstream"), headers.get("x-llmroute-attempts")
        line = gateway.request_line(headers["x-request-id"])
        assert line["attempts"] == int(attempts or 0)
        return answer.status_code, upstream, attempts, headers.get("x-fallback-model")

    assert told("tried") == (200, "c", "5", "spare")  # a twice, which opens its breaker, b twice, c
    assert told("tried") == (200, "c", "1", "spare")
    assert told("alone") == (503, None, "0", None)
    gateway.write({"chat": route(provider, *models, a=f"{DEAD}/z", b=f"{DEAD}/z")})
    assert told("alone") == (502, "a", "1", None)
    assert told("nothing") == (404, None, None, None)
    assert told("alone", key="wrong") == (401, None, None, None)


def test_shares_hold_for_the_whole_of_a_mixed_run(gateway: GatewayProcess, provider: Provider) -> None:
    """A fallback's own callers see its shares, however many calls fall back to it between theirs."""
    models = [model("broken", "shared", a=1), model("shared", b=1, c=1)]
    gateway.write({"chat": route(provider, *models, a=f"{DEAD}/mixed")})
    with ThreadPoolExecutor(4) as threads:
        names = list(threads.map(lambda n: ask(gateway, "shared" if n % 3 else "broken"), range(100)))
    assert Counter(names) == {"b": 50, "c": 50}


def test_the_example_goes_where_its_page_says(tmp_path: Path) -> None:
    document = yaml.safe_load((REPOSITORY / "examples" / "routing.yaml").read_text())
    with running(tmp_path, {"routing": document["spec"]}) as gateway:
        assert [ask(gateway, "shared") for _ in range(4)] == ["east", "east", "west", "east"]
        sessions = [ask(gateway, "session", **{"x-session-id": session}) for session in "abab"]
        assert sessions == ["west", "east", "west", "east"]
        cheap = gateway.post({"model": "cheap"})
        assert (cheap.headers["x-llmroute-upstream"], cheap.headers["x-llmroute-attempts"]) == ("west", "4")
        thoughtful = gateway.post({"model": "thoughtful", "stream": True}).text
        assert thoughtful.startswith(": keep-alive\n\n: keep-alive\n\n")
        assert thoughtful.endswith("data: [DONE]\n\n")
