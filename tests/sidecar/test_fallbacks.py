"""What failures of upstreams come to: fallbacks, breakers, rests, and what the client is told when nobody served."""

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import GatewayProcess, running, spec, upstream
from tests.provider import (
    END,
    STREAM_HEAD,
    Behaviour,
    Provider,
    ProviderRequest,
    answers,
    chunk,
    closes_after,
    completion,
    event,
    providing,
    response,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.server
HELLO = {"model": "gpt", "messages": []}
QUICK = {"connect": "500ms", "firstToken": "300ms", "idle": "300ms", "request": "5s"}


async def silent(_: object, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


def route(bad: str, good: str, **of_bad: Any) -> dict[str, Any]:
    return spec(
        bad,
        upstreams=[upstream("bad", bad, timeouts=QUICK, **of_bad), upstream("good", good)],
        models=[
            {"name": "gpt", "targets": [{"upstream": "bad"}], "fallbacks": ["spare"]},
            {"name": "spare", "targets": [{"upstream": "good"}]},
            {"name": "alone", "targets": [{"upstream": "bad"}]},
        ],
    )


ERROR_EVENT = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'
FAILURES: dict[str, tuple[Behaviour, str, int | None]] = {
    "500": (answers(response(500, b"{}")), "server_error", 500),
    "503": (answers(response(503, b"{}")), "server_error", 503),
    "408": (answers(response(408, b"{}")), "server_error", 408),
    "429": (answers(response(429, b"{}")), "throttled", 429),
    "401": (answers(response(401, b'{"error":{"message":"sk-secret is wrong"}}')), "credential_refused", 401),
    "403": (answers(response(403, b"{}")), "credential_refused", 403),
    "redirect": (answers(response(302, b"", "location: http://169.254.169.254/")), "redirected", 302),
    "silence": (silent, "first_token_timeout", None),
    "closed at once": (closes_after(b""), "connection_lost", None),
    "cut inside the head": (closes_after(b"HTTP/1.1 200 OK\r\ncontent-ty"), "connection_lost", None),
    "not HTTP": (answers(b"SSH-2.0-OpenSSH\r\n\r\n"), "bad_response", None),
    "an endless head": (answers(b"HTTP/1.1 200 OK\r\n" + b"x-filler: 0123456789\r\n" * 10_000), "bad_response", None),
    "cut inside the body": (closes_after(response(200, completion())[:-20]), "connection_lost", 200),
    "a malformed chunk": (answers(STREAM_HEAD + b"zz\r\nnothing\r\n"), "bad_response", 200),
    "a stream that begins with an error": (answers(STREAM_HEAD + chunk(ERROR_EVENT) + END), "error_event", 200),
    "a stream cut before its content": (
        closes_after(STREAM_HEAD + chunk(event("")[:-2].replace(b'"content": ""', b'"role": "assistant"') + b"\n\n")),
        "connection_lost",
        200,
    ),
    "a status that is none": (answers(b"HTTP/1.1 000 X\r\ncontent-length: 0\r\n\r\n"), "bad_response", None),
    "a switch of protocols": (
        answers(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"),
        "bad_response",
        None,
    ),
    "interim answers without end": (answers(b"HTTP/1.1 103 X\r\nx: y\r\n\r\n" * 20_000), "bad_response", None),
    "trailers without end": (
        answers(STREAM_HEAD + b"0\r\n" + b"x-filler: 0123456789\r\n" * 50_000),
        "bad_response",
        200,
    ),
    "an empty stream": (answers(STREAM_HEAD + chunk(b": ping\n\n") + END), "empty_stream", 200),
}


MISTAKES = [400, 402, 404, 409, 413, 422]
MISTAKE = b'{"error":{"message":"your fault"}}'
CASES: dict[str, Behaviour] = {
    **{f"failure-{number}": behaviour for number, (behaviour, _, _) in enumerate(FAILURES.values())},
    **{f"mistake-{status}": answers(response(status, MISTAKE)) for status in MISTAKES},
}


@pytest.fixture(scope="module")
def cases() -> Iterator[Provider]:
    """A provider that behaves as the first part of the path says."""

    async def by_path(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        await CASES[request.path.split("/")[1]](request, writer)

    with providing(by_path) as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(cases: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One gateway with an upstream, and a model that is alone and one that has a spare, for each case."""
    urls = {case: f"{cases.url}/{case}" for case in CASES}
    urls |= {"refused": "http://127.0.0.1:1", "unknown-host": "http://no-such-host.invalid"}
    urls = {f"{case}-{way}": url for case, url in urls.items() for way in ("plain", "streamed")}
    with providing() as good:
        chat = spec(
            good.url,
            upstreams=[upstream(name, url, timeouts=QUICK) for name, url in urls.items()]
            + [upstream("good", good.url)],
            models=[
                {"name": "spare", "targets": [{"upstream": "good"}]},
                *({"name": f"gpt-{name}", "targets": [{"upstream": name}], "fallbacks": ["spare"]} for name in urls),
                *({"name": f"alone-{name}", "targets": [{"upstream": name}]} for name in urls),
            ],
        )
        with running(tmp_path_factory.mktemp("gateway"), {"chat": chat}) as gateway:
            yield gateway


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_before_the_first_content_falls_back(gateway: GatewayProcess, failure: str, streamed: bool) -> None:
    _, reason, status = FAILURES[failure]
    name = f"failure-{list(FAILURES).index(failure)}-{'streamed' if streamed else 'plain'}"
    answer = gateway.post({"model": f"gpt-{name}", "messages": [], "stream": streamed})
    assert answer.status_code == 200
    assert answer.headers["x-fallback-model"] == "spare"
    assert ("[DONE]" in answer.text) is streamed
    assert gateway.metric("gateway_fallback_used_total", from_model=f"gpt-{name}", to_model="spare") == 1

    alone = gateway.post({"model": f"alone-{name}", "messages": [], "stream": streamed})
    if reason == "throttled":
        assert alone.status_code == 503  # it rests since the first call
        assert alone.json()["error"]["code"] == "circuit_open"
        assert "x-should-retry" not in alone.headers
    else:
        assert alone.status_code == 502
        assert alone.json()["error"]["code"] == "upstream_failed"
        assert alone.json()["error"]["attempts"] == [
            {"model": f"alone-{name}", "upstream": name, "reason": reason, "status": status}
        ]
        assert alone.headers["x-should-retry"] == "false"
    assert alone.headers["x-llmroute-origin"] == "gateway"
    assert "secret" not in alone.text
    assert "127.0.0.1" not in alone.text
    label = "error" if status is None else str(status)
    assert gateway.metric("gateway_upstream_requests_total", upstream=name, status=label) >= 1


@pytest.mark.parametrize("status", MISTAKES)
def test_the_clients_mistake_is_handed_back_as_it_is(gateway: GatewayProcess, status: int) -> None:
    answer = gateway.post({"model": f"gpt-mistake-{status}-plain", "messages": []})
    assert answer.status_code == status
    assert answer.content == MISTAKE
    assert answer.headers["x-llmroute-origin"] == "upstream"
    assert "x-fallback-model" not in answer.headers
    breakers = gateway.get("/v1/circuit-breakers").json()["circuit_breakers"]
    breaker = next(breaker for breaker in breakers if breaker["upstream"] == f"mistake-{status}-plain")
    assert breaker["consecutive_failures"] == 0


@pytest.mark.parametrize(("case", "reason"), [("refused", "connect_failed"), ("unknown-host", "dns_failed")])
def test_what_cannot_be_connected_to_falls_back(gateway: GatewayProcess, case: str, reason: str) -> None:
    answer = gateway.post({"model": f"gpt-{case}-plain", "messages": []})
    assert answer.headers["x-fallback-model"] == "spare"
    attempts = gateway.post({"model": f"alone-{case}-plain", "messages": []}).json()["error"]["attempts"]
    assert [attempt["reason"] for attempt in attempts] == [reason]


def test_the_breaker_opens_rests_and_lets_one_probe_through(tmp_path: Path) -> None:
    with providing(answers(response(500, b"{}"))) as bad, providing() as good:
        chat = route(bad.url, good.url, breaker={"maxFailures": 3, "reset": "300ms"})
        with running(tmp_path, {"chat": chat}) as gateway:
            for _ in range(3):
                assert gateway.post({**HELLO, "model": "alone"}).status_code == 502
            refused = gateway.post({**HELLO, "model": "alone"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "circuit_open"
            assert int(refused.headers["retry-after"]) >= 1
            assert len(bad.requests) == 3
            assert gateway.metric("gateway_circuit_open_total", upstream="bad") == 1
            assert gateway.metric("llmroute_breaker_state", upstream="bad") == 2
            bad.behaviour = answers(response(200, completion()))
            wait_until(
                lambda: gateway.post({**HELLO, "model": "alone"}).status_code == 200, "the probe after the reset"
            )
            breaker = gateway.get("/v1/circuit-breakers").json()["circuit_breakers"][0]
            assert breaker["state"] == "closed"


def test_a_throttled_upstream_rests_for_as_long_as_it_asked(tmp_path: Path) -> None:
    with (
        providing(answers(response(429, b"{}", "retry-after: 120"))) as bad,
        providing() as good,
        running(tmp_path, {"chat": route(bad.url, good.url)}) as gateway,
    ):
        assert gateway.post(HELLO).headers["x-fallback-model"] == "spare"
        assert gateway.post(HELLO).headers["x-fallback-model"] == "spare"
        assert len(bad.requests) == 1
        refused = gateway.post({**HELLO, "model": "alone"})
        assert refused.status_code == 503
        assert 100 < int(refused.headers["retry-after"]) <= 120
        assert refused.headers["x-should-retry"] == "false"  # no SDK waits that long: some try again at once


def test_a_kept_connection_that_died_unseen_is_replaced(tmp_path: Path) -> None:
    """The provider closes after each answer without saying so: no call may fail for it, and none is sent twice."""

    async def close_behind(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, completion()))
        await writer.drain()
        writer.close()

    with providing(close_behind) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        for _ in range(30):
            assert gateway.post(HELLO).status_code == 200
        assert len(provider.requests) == 30


def test_kept_connections_that_all_died_unseen_cost_no_call(tmp_path: Path) -> None:
    """A provider that was restarted: the first try finds one dead, the second takes a new one, not the next dead."""
    seen: set[int] = set()

    async def once_a_connection(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        if request.connection in seen:
            writer.transport.abort()
            return
        seen.add(request.connection)
        while len(seen) < 5:  # until five are open at once
            await asyncio.sleep(0.005)
        writer.write(response(200, completion()))

    with providing(once_a_connection) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        with ThreadPoolExecutor(5) as threads:
            answers = list(threads.map(gateway.post, [HELLO] * 5))
        assert [answer.status_code for answer in answers] == [200] * 5
        assert provider.connections == 5
        assert [gateway.post(HELLO).status_code for _ in range(3)] == [200] * 3


def test_all_attempts_of_an_upstream_end_with_its_request_timeout(tmp_path: Path) -> None:
    async def drips(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        while True:
            writer.write(chunk(b": ping\n\n"))
            await asyncio.sleep(0.02)

    with providing(drips) as provider:
        chat = spec(provider.url)
        chat["upstreams"][0]["timeouts"] = {"firstToken": "60s", "idle": "60s", "request": "300ms"}
        with running(tmp_path, {"chat": chat}) as gateway:
            for streamed in (False, True):
                answer = gateway.post({**HELLO, "stream": streamed})
                assert answer.status_code == 502
                assert answer.json()["error"]["attempts"][0]["reason"] == "request_timeout"


def test_pings_do_not_put_off_the_first_token(tmp_path: Path) -> None:
    async def pings(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        while True:
            writer.write(chunk(b": ping\n\n"))
            await asyncio.sleep(0.02)

    with (
        providing(pings) as bad,
        providing() as good,
        running(tmp_path, {"chat": route(bad.url, good.url)}) as gateway,
    ):
        answer = gateway.post({**HELLO, "stream": True})
        assert answer.headers["x-fallback-model"] == "spare"
        alone = gateway.post({"model": "alone", "stream": True})
        assert alone.json()["error"]["attempts"][0]["reason"] == "first_token_timeout"


def test_a_large_body_for_an_upstream_that_does_not_read_is_given_up(tmp_path: Path) -> None:
    """And then let go, each time: not at some later garbage collection."""
    with socket.create_server(("127.0.0.1", 0)) as deaf, providing() as good:
        chat = route(f"http://127.0.0.1:{deaf.getsockname()[1]}", good.url, breaker={"maxFailures": 100})
        with running(tmp_path, {"chat": chat}) as gateway:
            large = b'{"model":"gpt","user":"' + b"x" * (8 * 1024 * 1024) + b'"}'
            assert gateway.post(large).headers["x-fallback-model"] == "spare"
            before = gateway.memory_kib()
            for _ in range(4):
                assert gateway.post(large).headers["x-fallback-model"] == "spare"
            assert gateway.memory_kib() - before < 24 * 1024
            assert good.requests[-1].body.endswith(large[-1000:])


def test_what_an_upstream_asks_for_is_handed_on_when_the_gateway_gives_up(tmp_path: Path) -> None:
    with providing(answers(response(429, b"{}", "retry-after-ms: 2500"))) as bad, providing() as good:
        chat = route(bad.url, good.url)
        chat["models"] += [{"name": "broken-too", "targets": [{"upstream": "down"}, {"upstream": "bad"}]}]
        chat["upstreams"] += [upstream("down", "http://127.0.0.1:1")]
        with running(tmp_path, {"chat": chat}) as gateway:
            mixed = gateway.post({"model": "broken-too"})
            assert mixed.status_code == 502
            assert mixed.headers["retry-after"] == "3"
            assert mixed.headers["x-should-retry"] == "false"
            assert [attempt["reason"] for attempt in mixed.json()["error"]["attempts"]] == [
                "connect_failed",
                "throttled",
            ]


def test_a_first_throttling_of_all_there_is_says_when_a_retry_is_worth_it(tmp_path: Path) -> None:
    with (
        providing(answers(response(429, b"{}", "retry-after: 7"))) as bad,
        running(tmp_path, {"chat": spec(bad.url)}) as gateway,
    ):
        throttled = gateway.post(HELLO)
        assert (throttled.status_code, throttled.headers["retry-after"]) == (502, "7")
        assert "x-should-retry" not in throttled.headers


def test_an_upstreams_own_limit_passes_it_over_and_is_used_up_by_attempts_alone(tmp_path: Path) -> None:
    outcomes = iter([200, 500])

    async def sometimes(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(response(next(outcomes), completion()))

    with providing(sometimes) as limited, providing() as good:
        chat = route(limited.url, good.url, breaker={"maxFailures": 1, "reset": "1h"})
        chat["limits"] = [
            {"name": "three", "per": "Upstream", "requests": 3, "window": "1h"},
            {"name": "many", "per": "Client", "requests": 100, "window": "1h"},
        ]
        with running(tmp_path, {"chat": chat}) as gateway:
            first = gateway.post({"model": "alone"})
            assert first.status_code == 200
            assert first.headers["x-ratelimit-limit-requests"] == "100"  # the client's own limit, not the upstream's
            assert gateway.post({"model": "alone"}).status_code == 502  # opens the breaker
            for _ in range(5):
                gateway.post({"model": "alone"})  # shut out: uses up nothing
            outcomes = iter([200])
            chat["upstreams"][0]["breaker"]["reset"] = "1ms"  # counts from when it opened, which is over
            gateway.write({"chat": chat})
            wait_until(lambda: gateway.post({"model": "alone"}).status_code == 200, "the probe after the reset")
            refused = gateway.post({"model": "alone"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert refused.headers["x-llmroute-limit"] == "three"
            assert refused.headers["x-ratelimit-limit-requests"] == "3"
            assert refused.headers["x-ratelimit-remaining-requests"] == "0"
            assert 0 < int(refused.headers["retry-after"]) <= 3600
            assert gateway.post(HELLO).headers["x-fallback-model"] == "spare"
            assert len(limited.requests) == 3


def test_retries_are_made_as_the_model_says(tmp_path: Path) -> None:
    outcomes = iter([500, 500, 200])

    async def sometimes(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(response(next(outcomes), completion()))

    with providing(sometimes) as provider:
        chat = spec(provider.url)
        chat["models"][0]["retry"] = {"attempts": 3, "backoff": "1ms"}
        with running(tmp_path, {"chat": chat}) as gateway:
            assert gateway.post(HELLO).status_code == 200
            assert len(provider.requests) == 3


def test_an_error_that_tells_how_limits_stand_is_tried_again_all_the_same(tmp_path: Path) -> None:
    """OpenAI tells that on each answer. A call waited for the reset, or was not tried again at all."""
    resets = ("x-ratelimit-reset-requests: 8.64s", "x-ratelimit-reset-tokens: 6m0s")
    outcomes = iter([500, 200])

    async def sometimes(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(response(next(outcomes), completion(), *resets))

    with providing(sometimes) as provider:
        chat = spec(provider.url)
        chat["models"][0]["retry"] = {"attempts": 2, "backoff": "1ms"}
        with running(tmp_path, {"chat": chat}) as gateway:
            assert gateway.post(HELLO).status_code == 200


def test_an_answer_that_nobody_asked_for_is_not_the_end_of_another(tmp_path: Path) -> None:
    two = response(200, completion()) + response(200, b'{"not": "asked for"}')
    with providing(answers(two)) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        for _ in range(3):
            assert gateway.post(HELLO).content == completion()
        assert provider.connections == 3


def test_an_answer_in_a_transfer_coding_that_was_not_asked_for_is_broken(tmp_path: Path) -> None:
    packed = b"HTTP/1.1 200 X\r\ntransfer-encoding: gzip, chunked\r\n\r\n" + chunk(b"\x1f\x8b") + END
    with providing(answers(packed)) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        assert gateway.post(HELLO).json()["error"]["attempts"][0]["reason"] == "bad_response"


def test_a_missing_credential_takes_out_only_its_upstream(tmp_path: Path) -> None:
    with providing() as bad, providing() as good:
        chat = route(bad.url, good.url, credential={"secretRef": {"name": "not-there", "key": "api-key"}})
        with running(tmp_path, {"chat": chat}) as gateway:
            assert gateway.post(HELLO).headers["x-fallback-model"] == "spare"
            assert not bad.requests
            status = gateway.status()
            assert "Secret 'not-there'" in status["missing_secrets"][0]
            assert status["unavailable_upstreams"] == [
                {"route": "chat", "upstream": "bad", "reason": "credential_missing"}
            ]
            (tmp_path / "secrets" / "not-there").mkdir()
            (tmp_path / "secrets" / "not-there" / "api-key").write_text("sk-\u00e9")
            unusable = "entry 'api-key' of Secret 'not-there' is not usable"
            wait_until(lambda: unusable in gateway.status()["missing_secrets"][0], "the unusable one to be told")
            (tmp_path / "secrets" / "not-there" / "api-key").write_text("sk-late")
            wait_until(lambda: not gateway.status()["missing_secrets"], "the late Secret to be seen")
            assert "x-fallback-model" not in gateway.post(HELLO).headers
            assert bad.requests[-1].headers["authorization"] == "Bearer sk-late"
