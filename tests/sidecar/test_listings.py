"""What the admin port lists: models, limits, the last calls."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway_process import GatewayProcess, end, running, spec, start, upstream
from tests.waiting import HANGS_AFTER

pytestmark = pytest.mark.server

PROMPT = "a-word-of-the-prompt"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    route = spec(
        "",
        upstreams=[upstream("mock", "mock://local?tokens=3"), upstream("broken", "mock://fail")],
        models=[
            {"name": "gpt", "targets": [{"upstream": "mock", "model": "gpt-eu"}]},
            {"name": "shaky", "targets": [{"upstream": "broken"}], "fallbacks": ["gpt"]},
            {"name": "llama*", "targets": [{"upstream": "mock", "weight": 3}, {"upstream": "broken", "weight": 0}]},
        ],
        defaultUpstream="mock",
        limits=[
            {"name": "calls", "per": "Client", "requests": 500, "window": "30m"},
            {"name": "tokens", "per": "Model", "tokens": 90000, "window": "1m"},
            {"name": "slots", "per": "Gateway", "concurrency": 4},
            {"name": "spend", "per": "Client", "budget": {"usd": "2.50", "period": "Week"}},
            {"name": "one", "per": "Upstream", "requests": 400, "window": "1h"},
        ],
        logging={"sample": [{"status": "2xx", "rate": 0}]},
    )
    with running(tmp_path_factory.mktemp("gateway"), {"chat": route}, keys={"web": "key-of-web"}) as gateway:
        yield gateway


def listed(gateway: GatewayProcess, what: str) -> list[dict[str, Any]]:
    response = httpx.get(f"{gateway.admin_url}/{what}", timeout=HANGS_AFTER)
    assert response.status_code == 200
    found: list[dict[str, Any]] = response.json()[what]
    return found


def ask(gateway: GatewayProcess, model: str, **more: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    request_id: str = gateway.post(body, **more).headers["x-request-id"]
    return request_id


def finished(gateway: GatewayProcess, request_id: str) -> dict[str, Any]:
    (found,) = [one for one in listed(gateway, "requests") if one["request_id"] == request_id]
    return found


def test_models_are_listed_with_where_they_go(gateway: GatewayProcess) -> None:
    assert listed(gateway, "models") == [
        {
            "name": "gpt",
            "route": "chat",
            "targets": [{"upstream": "mock", "model": "gpt-eu", "weight": 1}],
            "fallbacks": [],
        },
        {
            "name": "shaky",
            "route": "chat",
            "targets": [{"upstream": "broken", "model": None, "weight": 1}],
            "fallbacks": ["gpt"],
        },
        {
            "name": "llama*",
            "route": "chat",
            "targets": [
                {"upstream": "mock", "model": None, "weight": 3},
                {"upstream": "broken", "model": None, "weight": 0},
            ],
            "fallbacks": [],
        },
        {
            "name": None,
            "route": "chat",
            "targets": [{"upstream": "mock", "model": None, "weight": 1}],
            "fallbacks": [],
        },
    ]


def test_limits_are_listed_with_what_is_left(gateway: GatewayProcess) -> None:
    before = {one["name"]: one for one in listed(gateway, "limits")}
    ask(gateway, "gpt", key="key-of-web")
    after = {one["name"]: one for one in listed(gateway, "limits")}
    assert after["calls"] == {**before["calls"], "remaining": after["calls"]["remaining"]}
    assert (after["calls"]["kind"], after["calls"]["per"], after["calls"]["limit"]) == ("requests", "Client", 500)
    assert after["calls"]["window_seconds"] == 1800
    assert after["calls"]["remaining"] < 500
    assert (after["tokens"]["kind"], after["tokens"]["window_seconds"]) == ("tokens", 60)
    assert after["tokens"]["remaining"] < 90000
    assert (after["slots"]["kind"], after["slots"]["remaining"], after["slots"]["waiting"]) == ("concurrency", 4, 0)
    assert (after["spend"]["kind"], after["spend"]["limit"], after["spend"]["period"]) == ("budget", 2.5, "Week")
    assert after["one"]["remaining"] == before["one"]["remaining"] - 1


def test_a_call_is_listed_though_no_line_is_logged_for_it(gateway: GatewayProcess) -> None:
    call = finished(gateway, ask(gateway, "shaky", key="key-of-web"))
    assert call["model"] == "shaky"
    assert call["client"] == "web"
    assert call["upstream"] == "mock"
    assert call["fallback_model"] == "gpt"
    assert call["attempts"] == 2
    assert call["tried"] == ["broken: mock_failure", "mock: served"]
    assert call["status"] == 200
    assert call["tokens"]["output"] == 3
    assert call["code"] is None
    assert not any(line.get("request_id") == call["request_id"] for line in gateway.lines)


def test_a_refused_call_is_listed_with_why(gateway: GatewayProcess) -> None:
    nobody = finished(gateway, ask(gateway, "gpt", key="a-wrong-key"))
    assert (nobody["status"], nobody["code"], nobody["client"]) == (401, "invalid_api_key", None)
    long = finished(gateway, ask(gateway, "gpt", path="/v2/" + "x" * 3000))
    assert long["status"] == 404
    assert len(long["path"]) == 200


def test_the_limit_that_refused_a_call_is_named_in_list_and_log(gateway: GatewayProcess, tmp_path: Path) -> None:
    route = spec("mock://local", limits=[{"name": "few", "per": "Client", "requests": 1, "window": "1h"}])
    with running(tmp_path, {"chat": route}) as gateway:
        served, refused = ask(gateway, "gpt"), ask(gateway, "gpt")
        assert finished(gateway, served)["limit"] is None
        assert finished(gateway, refused)["limit"] == "few"
        assert gateway.request_line(refused)["limit"] == "few"
        assert "limit" not in gateway.request_line(served)


def test_only_the_last_hundred_are_kept_and_nothing_of_what_they_said(gateway: GatewayProcess) -> None:
    ids = [ask(gateway, "gpt") for _ in range(110)]
    calls = listed(gateway, "requests")
    assert [one["request_id"] for one in calls] == ids[:-101:-1]
    text = httpx.get(f"{gateway.admin_url}/requests").text
    assert PROMPT not in text
    assert "test-key" not in text


def test_probes_scrapes_and_lists_are_no_calls(gateway: GatewayProcess) -> None:
    before = listed(gateway, "requests")
    for path in ("/health", "/ready", "/metrics", "/v1/circuit-breakers", "/v1/models"):
        assert gateway.get(path, headers={"x-api-key": "key-of-web"}).status_code == 200
    assert listed(gateway, "requests") == before


@pytest.mark.parametrize(
    "path", ["/", "/status", "/models", "/limits", "/requests", "/v1/circuit-breakers", "/metrics"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_the_admin_port_only_reads(gateway: GatewayProcess, method: str, path: str) -> None:
    assert httpx.request(method, gateway.admin_url + path, timeout=HANGS_AFTER).status_code == 405


def test_a_gateway_without_a_configuration_has_nothing_to_list(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    gateway = start(tmp_path)
    try:
        assert [listed(gateway, what) for what in ("models", "limits", "requests")] == [[], [], []]
    finally:
        end(gateway)


def test_the_lists_are_described_with_their_types(gateway: GatewayProcess) -> None:
    schema = httpx.get(f"{gateway.admin_url}/openapi.json", timeout=HANGS_AFTER).json()
    for path, name in (("/models", "Models"), ("/limits", "Limits"), ("/requests", "Requests")):
        content = schema["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert content["$ref"].endswith(f"/{name}")
        assert set(schema["paths"][path]) == {"get"}
