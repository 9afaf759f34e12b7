"""Gateways, a provider and calls of every kind, so that each series that a dashboard asks for exists.

Two pods of one gateway: `steady` serves, `astray` has another revision and then a configuration that it cannot read.
"""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream, write_config
from tests.provider import STREAM_HEAD, chunk, closes_after, event, providing
from tests.waiting import wait_until

ROUTE = "chat"


def route(broken_stream_url: str) -> dict[str, Any]:
    """A route that has something to tell of each kind."""

    patient = {"maxFailures": 1000, "reset": "30s"}

    def model(name: str, target: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "targets": [{"upstream": target}], **more}

    return spec(
        "mock://local?tokens=6&gap=2ms",
        upstreams=[
            upstream("provider", "mock://local?tokens=6&gap=2ms"),
            upstream("down", "mock://fail", breaker={"maxFailures": 2, "reset": "600s"}),
            upstream("flaky", "mock://fail", breaker=patient, retryBudget={"percent": 0, "burst": 1}),
            upstream("stranger", "mock://local?fail=1&status=401", breaker=patient),
            upstream("breaks-off", broken_stream_url, breaker=patient),
            upstream("worker", "litellm://openai/gpt-4o"),
        ],
        models=[
            model("gpt", "provider"),
            model("unpriced", "provider"),
            model("guarded", "down", fallbacks=["gpt"]),
            model("shaky", "flaky", retry={"attempts": 3, "backoff": "1ms"}),
            model("refused", "stranger"),
            model("cut", "breaks-off"),
            model("local", "worker"),
        ],
        limits=[
            {"name": "calls", "per": "Model", "requests": 100000, "window": "60s"},
            {"name": "tokens", "per": "Model", "tokens": 10000000, "window": "60s"},
            {"name": "slots", "per": "Gateway", "concurrency": 64},
            {"name": "spend", "per": "Client", "budget": {"usd": "1000", "period": "Day"}},
        ],
        prices=[{"model": "gpt", "inputPerMillion": "1000", "outputPerMillion": "1000"}],
    )


def scarce_route() -> dict[str, Any]:
    """One whose limit is soon reached."""
    return spec(
        "mock://local",
        models=[{"name": "scarce", "targets": [{"upstream": "provider"}]}],
        limits=[{"name": "few", "per": "Model", "requests": 1, "window": "60s"}],
    )


MODELS = ("gpt", "unpriced", "scarce", "guarded", "shaky", "refused", "cut")


@dataclass(frozen=True)
class Scene:
    gateways: Mapping[str, GatewayProcess]
    """By the name of the pod that each is in."""


@contextmanager
def playing(folder: Path) -> Iterator[Scene]:
    """Calls go on, a few at a time, until the end."""
    with ExitStack() as stack:
        provider = stack.enter_context(providing(closes_after(STREAM_HEAD + chunk(event("one ")))))
        routes = {ROUTE: route(provider.url), "scarce": scarce_route()}
        # Nobody calls the litellm:// upstream: its worker has series before it has a process.
        litellm = ("--litellm-python", sys.executable)
        steady = stack.enter_context(running(_made(folder / "steady"), routes, *litellm))
        other = {**routes, ROUTE: {**routes[ROUTE], "defaultUpstream": "provider"}}
        astray = stack.enter_context(running(_made(folder / "astray"), other))
        stop = threading.Event()
        for gateway in (steady, astray):
            caller = threading.Thread(target=_call, args=(gateway.url, gateway, stop), daemon=True)
            caller.start()
            stack.callback(caller.join, 30)
        stack.callback(stop.set)
        yield Scene({"steady": steady, "astray": astray})


def lead_astray(gateway: GatewayProcess) -> None:
    """A change that it serves, then one that it cannot read: it stays with what it has, and tells."""
    write_config(gateway.config_dir, {ROUTE: spec("mock://local")})
    broken = gateway.config_dir / "gateway.json"
    wait_until(lambda: gateway.metric("llmroute_config_reloads_total", result="applied") > 0, "the first change")
    broken.write_text("{")
    wait_until(
        lambda: gateway.metric("llmroute_config_healthy") == 0, "the gateway to tell of its broken configuration"
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _call(url: str, gateway: GatewayProcess, stop: threading.Event) -> None:
    with httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=30) as client:
        while not stop.wait(0.05):
            for model in MODELS:
                for stream in (False, True):
                    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
                    with suppress(httpx.RemoteProtocolError):
                        client.post(f"{url}/v1/chat/completions", json=body)
