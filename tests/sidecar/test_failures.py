"""Each failure of failure_table.py, plain and streamed, with a fallback and without: as docs/failures.md, which is
made from that table, says.

All calls are made first, several at a time, as most of them wait for a timeout; then each is looked at by itself.
"""

import asyncio
import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import httpx
import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream, write_secret
from tests.provider import STREAM_HEAD, ProviderRequest, chunk, providing
from tests.sidecar.certificates import Authority
from tests.sidecar.failure_table import (
    BEHAVIOURS,
    ERROR_EVENT,
    FAILURES,
    FIRST,
    LARGE,
    Comes,
    Failure,
    Kind,
)
from tests.waiting import HANGS_AFTER, wait_until

pytestmark = pytest.mark.server
UPSTREAMS_PER_ROUTE = 60
PATH = "/v1/chat/completions"


class Case(NamedTuple):
    failure: Failure
    kind: Kind
    fallback: bool

    @property
    def name(self) -> str:
        """Of its own upstream and its own model, so that no case meets another's breaker."""
        return f"{self.failure.id}-{self.kind}-{'fallback' if self.fallback else 'alone'}"

    @property
    def comes(self) -> Comes:
        comes = self.failure.comes_to(self.kind)
        assert comes is not None
        return comes


CASES = [
    Case(failure, kind, fallback)
    for failure in FAILURES.values()
    for kind in get_args(Kind)
    if failure.comes_to(kind) is not None
    for fallback in (False, True)
]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: bytes
    whole: bool
    rests: bool
    """Whether its upstream rested right after it."""


@dataclass(frozen=True)
class Seen:
    answers: Mapping[str, Answer]
    metrics: Mapping[str, float]
    breakers: Mapping[str, dict[str, Any]]
    lines: Mapping[str, dict[str, Any]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def urls(authority: Authority) -> Iterator[Mapping[str, str]]:
    """Of what stands behind `Failure.at`; `good` serves, `good-tls` too."""

    async def by_path(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        await BEHAVIOURS[request.path.split("/")[1]](request, writer)

    with ExitStack() as stack:
        provider = stack.enter_context(providing(by_path)).url
        plain = stack.enter_context(providing()).url
        yield {
            "refused": "http://127.0.0.1:1",
            "unknown": "http://no-such-host.invalid",
            "no-tls": stack.enter_context(answering_anything(b"HTTP/1.1 400 X\r\n\r\n")),
            "deaf": stack.enter_context(answering_anything(None)),
            "provider": provider,
            "good": plain,
            "good-tls": stack.enter_context(providing(tls=authority.server())).url,
            "untrusted": stack.enter_context(providing(tls=authority.server())).url,
            "wrong-name": stack.enter_context(providing(tls=authority.server("DNS:elsewhere.example"))).url,
            "expired": stack.enter_context(providing(tls=authority.server(expired=True))).url,
        }


@contextmanager
def answering_anything(data: bytes | None) -> Iterator[str]:
    """The https:// URL of a server that answers whatever comes with `data`, or never."""
    if data is None:
        with socket.create_server(("127.0.0.1", 0)) as deaf:  # connections wait in its queue
            yield f"https://127.0.0.1:{deaf.getsockname()[1]}"
        return

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def upstream_of(case: Case, urls: Mapping[str, str]) -> dict[str, Any]:
    failure = case.failure
    url = urls[failure.at]
    made = upstream(case.name, f"{url}/{failure.id}" if failure.at == "provider" else url)
    if failure.at in ("wrong-name", "expired"):
        made["tls"] = {"caFrom": {"secretRef": {"name": "ca", "key": "ca.crt"}}}
    if failure.timeouts:
        made["timeouts"] = dict(failure.timeouts)
    return made


def routes(urls: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """A model for each case, in as many routes as their upstreams need."""
    made = {}
    for number, begin in enumerate(range(0, len(CASES), UPSTREAMS_PER_ROUTE)):
        cases = CASES[begin : begin + UPSTREAMS_PER_ROUTE]
        models = [
            {
                "name": f"model-{case.name}",
                "targets": [{"upstream": case.name}],
                **({"fallbacks": ["spare"]} if case.fallback else {}),
            }
            for case in cases
        ]
        made[f"cases-{number}"] = spec("", upstreams=[upstream_of(case, urls) for case in cases], models=models)
    trusted = upstream("good-tls", urls["good-tls"], tls={"caFrom": {"secretRef": {"name": "ca", "key": "ca.crt"}}})
    made["good"] = spec(
        "",
        upstreams=[upstream("good", urls["good"]), trusted],
        models=[
            {"name": "spare", "targets": [{"upstream": "good"}]},
            {"name": "trusted", "targets": [{"upstream": "good-tls"}]},
        ],
    )
    return made


@pytest.fixture(scope="module")
def gateway(
    urls: Mapping[str, str], authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    write_secret(folder / "secrets", "ca", {"ca.crt": authority.pem})
    with running(folder, routes(urls)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def seen(gateway: GatewayProcess) -> Seen:
    """Every case, called once."""
    with httpx.Client(timeout=HANGS_AFTER) as client, ThreadPoolExecutor(24) as threads:
        answers = dict(
            zip(
                (case.name for case in CASES),
                threads.map(lambda case: asked(client, gateway, case), CASES),
                strict=True,
            )
        )
    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "all calls to be over")
    samples = [line.rpartition(" ") for line in gateway.get("/metrics").text.splitlines() if not line.startswith("#")]

    def lines() -> dict[str, dict[str, Any]]:
        found = {line["request_id"]: line for line in gateway.lines if line.get("path") == PATH}
        return found if answers.keys() <= found.keys() else {}

    return Seen(
        answers,
        {series: float(value) for series, _, value in samples},
        breakers_of(gateway),
        wait_until(lines, "a log line for each call"),
    )


def asked(client: httpx.Client, gateway: GatewayProcess, case: Case) -> Answer:
    body = {"model": f"model-{case.name}", "messages": [], "stream": case.kind == "streamed"}
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": case.name}
    with client.stream("POST", gateway.url + PATH, json=body, headers=headers) as answer:
        got, whole = b"", True
        try:
            for piece in answer.iter_raw():
                got += piece
        except httpx.TransportError:
            whole = False
    rests = case.comes.breaker == "a rest" and breakers_of(gateway)[case.name]["retry_after"] > 0
    return Answer(answer.status_code, answer.headers, got, whole, rests)


def breakers_of(gateway: GatewayProcess) -> dict[str, dict[str, Any]]:
    breakers = gateway.get("/v1/circuit-breakers").json()["circuit_breakers"]
    return {breaker["upstream"]: breaker for breaker in breakers}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_failure_comes_to_what_the_page_says(case: Case, seen: Seen) -> None:
    comes, answer = case.comes, seen.answers[case.name]
    told = {"next": next_serves if case.fallback else nobody_serves, "as it is": as_it_is}
    told |= {"error event": ends_with_an_error_event, "cut": is_cut}
    told[comes.way](case, answer)
    fell_back = comes.way == "next" and case.fallback
    assert answer.headers["x-llmroute-upstream"] == ("good" if fell_back else case.name)
    assert answer.headers["x-llmroute-attempts"] == ("2" if fell_back else "1")
    assert answer.headers.get("x-fallback-model") == ("spare" if fell_back else None)
    for secret in (b"sk-secret", b"10.0.0.1", b"127.0.0.1", b"no-such-host"):
        assert comes.way == "as it is" or secret not in answer.body


def next_serves(case: Case, answer: Answer) -> None:
    assert (answer.status, answer.whole) == (200, True)
    assert answer.headers["x-llmroute-origin"] == "upstream"
    assert (b"[DONE]" in answer.body) == (case.kind == "streamed")
    assert (b"three" in answer.body) == (case.kind == "streamed")


def nobody_serves(case: Case, answer: Answer) -> None:
    comes, error = case.comes, json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["type"]) == (502, "upstream_failed", "server_error")
    assert error["attempts"] == [
        {"model": f"model-{case.name}", "upstream": case.name, "reason": comes.reason, "status": comes.status}
    ]
    assert answer.headers["x-llmroute-origin"] == "gateway"
    assert answer.headers.get("x-should-retry") == (None if comes.retry else "false")
    wait = answer.headers.get("retry-after")
    if comes.retry_after is None:
        assert wait is None
    else:
        assert comes.retry_after[0] <= int(wait or -1) <= comes.retry_after[1]


def as_it_is(case: Case, answer: Answer) -> None:
    assert (answer.status, answer.whole) == (case.comes.status, True)
    assert answer.headers["x-llmroute-origin"] == "upstream"
    bodies = {
        "error-event-late": FIRST + ERROR_EVENT,
        "no-done": FIRST,
        "length-too-small": FIRST if case.kind == "streamed" else b"{}",
    }
    assert answer.body == bodies.get(case.failure.id, b'{"error":{"message":"sk-secret at 10.0.0.1"}}')


def ends_with_an_error_event(case: Case, answer: Answer) -> None:
    assert (answer.status, answer.whole) == (200, True)
    assert answer.headers["x-llmroute-origin"] == "upstream"
    assert b"[DONE]" not in answer.body
    *whole, last, end = answer.body.split(b"\n\n")
    assert end == b""
    assert set(whole) == {FIRST.rstrip()}
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_failed"


def is_cut(case: Case, answer: Answer) -> None:
    assert (answer.status, answer.whole) == (200, False)
    assert answer.headers["x-llmroute-origin"] == "upstream"
    assert answer.body.startswith(FIRST if case.kind == "streamed" else LARGE[:1000])
    assert b"upstream_failed" not in answer.body


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_failure_counts_as_the_page_says(case: Case, seen: Seen) -> None:
    comes, breaker, line = case.comes, seen.breakers[case.name], seen.lines[case.name]
    counted = {series: value for series, value in seen.metrics.items() if f'"{case.name}"' in series}
    tries = {series: value for series, value in counted.items() if series.startswith("gateway_upstream_requests_total")}
    label = comes.status or "error"
    assert tries == {f'gateway_upstream_requests_total{{status="{label}",upstream="{case.name}"}}': 1} or tries == {
        f'gateway_upstream_requests_total{{upstream="{case.name}",status="{label}"}}': 1
    }
    fell_back = comes.way == "next" and case.fallback
    fallbacks = seen.metrics.get(f'gateway_fallback_used_total{{from_model="model-{case.name}",to_model="spare"}}', 0.0)
    assert fallbacks == float(fell_back)

    broken = comes.breaker in ("a failure", "a refused credential")
    assert breaker["state"] == "closed"
    assert breaker["consecutive_failures"] == int(broken)
    assert breaker["credential_refused"] == (comes.breaker == "a refused credential")
    assert seen.answers[case.name].rests == (comes.breaker == "a rest")

    assert line["status"] == seen.answers[case.name].status
    assert line["attempts"] == (2 if fell_back else 1)
    assert line["fallback_model"] == ("spare" if fell_back else None)
    if comes.reason != "served":
        assert f"{case.name}: {comes.reason}" in line["tried"]


def test_every_stream_that_broke_off_is_counted_and_nothing_else(seen: Seen) -> None:
    broke_off = sum(case.comes.way in ("error event", "cut") for case in CASES)
    assert seen.metrics["llmroute_streams_truncated_total"] == broke_off
    answered = sum(
        value
        for series, value in seen.metrics.items()
        if series.startswith("gateway_requests_total") and f'path="{PATH}"' in series
    )
    assert answered == len(CASES)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_the_certificates_fail_for_what_is_wrong_with_them_alone(gateway: GatewayProcess, streamed: bool) -> None:
    answer = gateway.post({"model": "trusted", "messages": [], "stream": streamed})
    assert answer.status_code == 200
    assert answer.headers["x-llmroute-upstream"] == "good-tls"


@pytest.mark.parametrize("begun", [False, True], ids=["the first event", "a later event"])
def test_an_event_without_end_fills_no_memory(tmp_path: Path, begun: bool) -> None:
    """It goes through as it comes; the gateway holds back no more than 64 KiB of it."""
    pieces, piece = 64, chunk(b"y" * (1024 * 1024))

    async def endless_event(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + (chunk(FIRST) if begun else b"") + chunk(b"data: "))
        for _ in range(pieces):
            writer.write(piece)
            await writer.drain()
        writer.close()

    with providing(endless_event) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        before = gateway.memory_kib()
        assert drained(gateway, {"model": "gpt", "stream": True}) > (pieces - 1) * 1024 * 1024
        assert gateway.memory_kib() - before < 16 * 1024


def drained(gateway: GatewayProcess, body: dict[str, Any]) -> int:
    """Bytes of an answer that is cut off, read and thrown away."""
    came = 0
    with (
        httpx.stream("POST", gateway.url + PATH, json=body, headers={"authorization": f"Bearer {KEY}"}) as answer,
        contextlib.suppress(httpx.RemoteProtocolError),
    ):
        for data in answer.iter_raw():
            came += len(data)
        pytest.fail("the answer looks whole")
    return came
