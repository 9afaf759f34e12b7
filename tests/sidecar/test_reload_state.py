"""What lives on over a reload in the real process: limits, breakers and connections, unless it concerns them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import GatewayProcess, running, spec, upstream, write_config
from tests.provider import DONE, END, STREAM_HEAD, Provider, ProviderRequest, chunk, event, plain, providing, response
from tests.waiting import wait_until

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    async def behaviour(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        if request.path.startswith("/broken"):
            writer.write(response(500, b"{}"))
        else:
            await plain(request, writer)

    with providing(behaviour) as provider:
        yield provider


def route(provider: Provider, **changes: Any) -> dict[str, Any]:
    return spec(
        provider.url,
        upstreams=[
            upstream("good", provider.url),
            upstream("broken", f"{provider.url}/broken", breaker={"maxFailures": 2, "reset": "1h"}),
        ],
        models=[
            {"name": "gpt", "targets": [{"upstream": "good"}]},
            {"name": "broken", "targets": [{"upstream": "broken"}]},
        ],
        limits=[{"name": "four", "per": "Model", "requests": 4, "window": "1h"}],
        **changes,
    )


def ask(gateway: GatewayProcess, model: str = "gpt") -> tuple[int, str | None]:
    answer = gateway.post({"model": model, "messages": []})
    return answer.status_code, answer.headers.get("x-ratelimit-remaining-requests")


def breaker(gateway: GatewayProcess, name: str) -> str:
    breakers = gateway.get("/v1/circuit-breakers").json()["circuit_breakers"]
    return next(str(breaker["state"]) for breaker in breakers if breaker["upstream"] == name)


def test_limits_and_breakers_live_on_unless_the_reload_concerns_them(provider: Provider, tmp_path: Path) -> None:
    first = route(provider)
    with running(tmp_path, {"chat": first}) as gateway:
        assert [ask(gateway), ask(gateway)] == [(200, "3"), (200, "2")]
        assert [ask(gateway, "broken")[0] for _ in range(3)] == [502, 502, 503]
        assert breaker(gateway, "broken") == "open"
        connections = provider.connections

        # Something else changes: a header, another model, another route.
        other = route(provider)
        other["upstreams"][0]["headers"] = {"x-team": "shop"}
        other["models"].append({"name": "new", "targets": [{"upstream": "good"}]})
        gateway.write({"chat": other, "further": spec("mock://local", models=[_model("mock-model", "provider")])})
        assert ask(gateway) == (200, "1")
        assert provider.requests[-1].headers["x-team"] == "shop"
        assert provider.connections == connections  # and on a kept connection
        assert ask(gateway, "broken")[0] == 503
        assert breaker(gateway, "broken") == "open"

        # The numbers change: the history stays.
        other["limits"][0]["requests"] = 5
        other["upstreams"][1]["breaker"] = {"maxFailures": 7, "reset": "1h"}
        gateway.write({"chat": other})
        assert ask(gateway) == (200, "1")
        assert breaker(gateway, "broken") == "open"

        # The upstream is another one: its breaker is new. The limit is another one: so is its count.
        other["upstreams"][1]["url"] = f"{provider.url}/broken/elsewhere"
        other["limits"][0]["name"] = "five"
        gateway.write({"chat": other})
        assert breaker(gateway, "broken") == "closed"
        assert ask(gateway) == (200, "4")


def _model(name: str, target: str) -> dict[str, Any]:
    return {"name": name, "targets": [{"upstream": target}]}


def test_a_stream_goes_on_over_reloads_that_take_its_upstream_away(tmp_path: Path) -> None:
    """A request finishes on the snapshot it began with, its connection included."""
    steps = iter(["one", "two", "three"])
    go_on = asyncio.Event()

    async def stepwise(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for step in steps:
            writer.write(chunk(event(step)))
            await writer.drain()
            await go_on.wait()
            go_on.clear()
        writer.write(chunk(DONE) + END)

    with providing(stepwise) as provider, running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        body = b'{"model":"gpt","messages":[],"stream":true}'
        headers = {"authorization": "Bearer test-key-of-app"}
        url = f"{gateway.url}/v1/chat/completions"
        with gateway._client.stream("POST", url, content=body, headers=headers) as answer:
            parts = answer.iter_text()
            assert "one" in next(parts)
            gateway.write({"chat": spec("mock://local?tokens=1")})
            assert "choices" in gateway.post({"model": "gpt"}).text
            provider.call(go_on.set)
            assert "two" in next(parts)
            gateway.write({})
            assert gateway.post({"model": "gpt"}).status_code == 404
            provider.call(go_on.set)
            assert "three" in next(parts)
            provider.call(go_on.set)
            assert "[DONE]" in "".join(parts)
        wait_until(lambda: provider.open == 0, "the connection that nothing needs any more to be closed")


def test_no_call_fails_while_the_configuration_changes(provider: Provider, tmp_path: Path) -> None:
    with running(tmp_path, {"chat": spec(provider.url)}) as gateway:
        revisions = set()
        for number in range(200):
            if number % 20 == 0:
                chat = spec(provider.url if number % 40 else provider.url + "/other")
                chat["upstreams"][0]["headers"] = {"x-number": str(number)}
                write_config(gateway.config_dir, {"chat": chat})
            assert gateway.post({"model": "gpt", "messages": []}).status_code == 200
            revisions.add(gateway.status()["revision"])
        wait_until(
            lambda: (
                gateway.post({"model": "gpt"}).status_code == 200
                and provider.requests[-1].headers.get("x-number") == "180"
            ),
            "the last configuration to be served",
        )
