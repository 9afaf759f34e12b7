"""What has hurt users of other gateways and is no matter of one feature: each test names where it was told."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway_process import GatewayProcess, running, spec, upstream, write_secret
from tests.provider import DONE, END, STREAM_HEAD, Provider, ProviderRequest, chunk, event, providing, response

pytestmark = pytest.mark.server

NO_JSON = b"data: {no JSON, and no end\n\n"
STREAMS = {
    "amid": [event("one"), NO_JSON, event("two"), DONE],
    "first": [NO_JSON, event("one"), DONE],
}
PLAIN = b'{"of": "the good one"}'
FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt\r\n--b--\r\n'


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        kind = request.path.split("/")[1]
        if kind == "bad":
            writer.write(response(500, b"{}"))
        elif kind in STREAMS:
            writer.write(STREAM_HEAD + b"".join(map(chunk, STREAMS[kind])) + END)
        elif b'"stream":true' in request.body.replace(b" ", b""):
            writer.write(STREAM_HEAD + chunk(event("one")) + chunk(DONE) + END)
        else:
            writer.write(response(200, PLAIN))

    with providing(behaviour) as provider:
        yield provider


def route(provider: Provider) -> dict[str, Any]:
    names = ["bad", "good", "amid", "first"]
    credential = {"credential": {"secretRef": {"name": "provider", "key": "api-key"}}}
    targets: dict[str, str] = {"gpt": "bad", "spare": "good", "amid": "amid", "first": "first"}
    document = spec(
        provider.url,
        upstreams=[
            upstream(name, f"{provider.url}/{name}", breaker={"maxFailures": 100}, **credential) for name in names
        ],
        models=[{"name": name, "targets": [{"upstream": target}]} for name, target in targets.items()],
    )
    document["models"][0]["fallbacks"] = ["spare"]
    return document


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    write_secret(folder / "secrets", "provider", {"api-key": "sk-provider"})
    with running(folder, {"chat": route(provider)}) as gateway:
        yield gateway


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    "path", ["chat/completions", "completions", "responses", "messages", "embeddings", "rerank", "audio/transcriptions"]
)
def test_every_endpoint_falls_back_alike(gateway: GatewayProcess, path: str, streamed: bool) -> None:
    """LiteLLM wired retries and fallbacks for each endpoint anew, and not for all (BerriAI/litellm#29808, #28216)."""
    if path.startswith("audio"):
        streams = b'--b\r\nContent-Disposition: form-data; name="stream"\r\n\r\n"stream": true\r\n' if streamed else b""
        answer = gateway.post(
            streams + FORM, f"/v1/{path}", headers={"content-type": "multipart/form-data; boundary=b"}
        )
    else:
        answer = gateway.post({"model": "gpt", "stream": streamed}, f"/v1/{path}")
    assert answer.status_code == 200, answer.text
    assert answer.content == (event("one") + DONE if streamed else PLAIN)
    assert answer.headers["x-llmroute-attempts"] == "2"
    assert answer.headers["x-fallback-model"] == "spare"


@pytest.mark.parametrize("where", STREAMS)
def test_one_bad_line_ends_no_stream(gateway: GatewayProcess, where: str) -> None:
    """It did (BerriAI/litellm#6957, #40404); here the client's parser may judge it."""
    answer = gateway.post({"model": where, "messages": [], "stream": True})
    assert answer.content == b"".join(STREAMS[where])
    assert gateway.request_line(answer.headers["x-request-id"])["status"] == 200
    assert gateway.metric("llmroute_attempts_total", upstream=where, reason="served") == 1


def test_no_client_chooses_who_gets_the_credential(gateway: GatewayProcess, provider: Provider) -> None:
    """A header or a field of the body did, and the provider's key went there (CVE-2025-66405 of Portkey's gateway,
    BerriAI/litellm#37053)."""
    with providing() as stranger:
        host = stranger.url.removeprefix("http://")
        headers = {
            "host": host,
            "x-forwarded-host": host,
            "x-portkey-custom-host": stranger.url,
            "x-portkey-config": f'{{"custom_host": "{stranger.url}"}}',
            "helicone-target-url": stranger.url,
        }
        fields = {"api_base": stranger.url, "base_url": stranger.url, "custom_host": stranger.url}
        answer = gateway.post({"model": "spare", "messages": [], **fields}, headers=headers)
        assert answer.content == PLAIN
        assert stranger.requests == []
        assert stranger.open == 0
    asked = provider.requests[-1]
    assert asked.headers["authorization"] == "Bearer sk-provider"
    assert asked.headers["host"] == provider.url.removeprefix("http://")


def test_what_a_client_may_no_longer_use_is_refused_with_the_next_configuration(
    gateway: GatewayProcess, provider: Provider
) -> None:
    """A cache of first use kept what was granted once (BerriAI/litellm#35662)."""
    ask = {"model": "spare", "messages": []}
    assert gateway.post(ask).status_code == 200
    narrowed = route(provider)
    narrowed["auth"]["clients"] = [{"name": "app", "models": ["amid"]}]
    gateway.write({"chat": narrowed})
    refused = gateway.post(ask)
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "model_not_allowed"
    gateway.write({"chat": route(provider)})
    assert gateway.post(ask).status_code == 200
