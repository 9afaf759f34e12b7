"""Gateways, a provider and calls of every kind, so that each series that a dashboard asks for exists.

Two pods of one gateway: `steady` serves, `astray` has another revision and then a configuration that it cannot read. It
also loses the shared state, which `steady` keeps.
"""

import json
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream, write_config
from tests.operator.injector.injector_process import InjectorProcess
from tests.operator.injector.pods import pod
from tests.provider import STREAM_HEAD, chunk, closes_after, event, providing
from tests.state_server import serving_state
from tests.waiting import HANGS_AFTER, wait_until

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


def shared_route(name: str, when_unavailable: str) -> dict[str, Any]:
    """One whose limit all pods count together."""
    return spec(
        "mock://local",
        models=[{"name": name, "targets": [{"upstream": "provider"}]}],
        limits=[{"name": "together", "per": "Model", "requests": 100000, "window": "60s", "scope": "Gateway"}],
        sharedState={"whenUnavailable": when_unavailable},
    )


def scarce_route() -> dict[str, Any]:
    """One whose limit is soon reached."""
    return spec(
        "mock://local",
        models=[{"name": "scarce", "targets": [{"upstream": "provider"}]}],
        limits=[{"name": "few", "per": "Model", "requests": 1, "window": "60s"}],
    )


MODELS = ("gpt", "unpriced", "scarce", "guarded", "shaky", "refused", "cut", "open", "closed")


@dataclass(frozen=True)
class Scene:
    gateways: Mapping[str, GatewayProcess]
    """By the name of the pod that each is in."""


@contextmanager
def playing(folder: Path) -> Iterator[Scene]:
    """Calls go on, a few at a time, until the end."""
    with ExitStack() as stack:
        provider = stack.enter_context(providing(closes_after(STREAM_HEAD + chunk(event("one ")))))
        routes = {
            ROUTE: route(provider.url),
            "scarce": scarce_route(),
            "open": shared_route("open", "FailOpen"),
            "closed": shared_route("closed", "FailClosed"),
        }
        kept, lost = (stack.enter_context(serving_state(folder / f"state-{one}")) for one in ("kept", "lost"))
        # Nobody calls the litellm:// upstream: its worker has series before it has a process.
        arguments = ("--litellm-python", sys.executable, "--shared-state-url", kept.url)
        steady = stack.enter_context(running(_made(folder / "steady"), routes, *arguments))
        other = {**routes, ROUTE: {**routes[ROUTE], "defaultUpstream": "provider"}}
        astray = stack.enter_context(running(_made(folder / "astray"), other, "--shared-state-url", lost.url))
        wait_until(lambda: astray.metric("llmroute_shared_state_up") == 1, "the shared state to be reached")
        lost.kill()
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
    with httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=HANGS_AFTER) as client:
        while not stop.wait(0.05):
            for model in MODELS:
                for stream in (False, True):
                    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
                    with suppress(httpx.RemoteProtocolError):
                        client.post(f"{url}/v1/chat/completions", json=body)


@contextmanager
def admitting(injector: InjectorProcess, namespace: str) -> Iterator[None]:
    """Pods that ask for a gateway of `namespace` come to the injector, and some that say nonsense."""
    stop = threading.Event()
    caller = threading.Thread(target=_admit, args=(injector, namespace, stop), daemon=True)
    caller.start()
    try:
        yield
    finally:
        stop.set()
        caller.join(30)


def _admit(injector: InjectorProcess, namespace: str, stop: threading.Event) -> None:
    request = {
        "uid": "1",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": namespace,
        "object": pod(),
    }
    review = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()
    trusting = ssl.create_default_context(cadata=injector.authority.pem)
    with httpx.Client(base_url=f"https://127.0.0.1:{injector.port}", verify=trusting, timeout=HANGS_AFTER) as client:
        while not stop.wait(0.2):
            for body in (review, b"{"):
                client.post("/mutate", content=body)
