"""A call's way through the real gateway to a real provider: ids, keys, limits, routing, headers."""

import re
from collections.abc import Iterator

import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, upstream, write_secret
from tests.provider import Provider, providing

pytestmark = pytest.mark.server
HELLO = {"model": "gpt", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    write_secret(folder / "secrets", "openai", {"api-key": "sk-provider-credential\n"})
    chat = spec(
        provider.url,
        upstreams=[
            upstream(
                "provider",
                provider.url,
                credential={"secretRef": {"name": "openai", "key": "api-key"}},
                headers={"x-team": "shop"},
            ),
            upstream("uncredentialed", provider.url + "/other/base"),
        ],
        models=[
            {"name": "gpt", "targets": [{"upstream": "provider"}]},
            {"name": "renamed", "targets": [{"upstream": "provider", "model": "gpt-eu"}]},
            {"name": "llama*", "targets": [{"upstream": "uncredentialed"}]},
            {"name": "scarce", "targets": [{"upstream": "provider"}]},
        ],
    )
    chat["auth"]["clients"] = [
        {"name": "narrow", "models": ["llama*"]},
        {"name": "expired", "expiresAt": "2020-01-01T00:00:00Z"},
    ]
    limited = spec(
        provider.url,
        models=[{"name": "limited", "targets": [{"upstream": "provider"}]}],
        limits=[
            {"name": "three", "per": "Client", "requests": 3, "window": "1h"},
            {"name": "many", "per": "Gateway", "requests": 100, "window": "1h"},
        ],
    )
    keys = {"narrow": "key-narrow", "expired": "key-expired", "other": "key-other\nkey-other-new\n"}
    with running(folder, {"chat": chat, "limited": limited}, keys=keys) as gateway:
        yield gateway


def test_a_call_is_answered_by_the_provider_byte_for_byte(gateway: GatewayProcess, provider: Provider) -> None:
    body = b'{ "model" : "gpt",  "messages":[{"role":"user","content":"gr\xc3\xbc\xc3\x9fe"}], "n": 1.0 }'
    answer = gateway.post(body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "hello"
    assert provider.requests[-1].body == body
    assert provider.requests[-1].path == "/v1/chat/completions"


def test_an_answer_says_who_made_it_and_under_which_ids(gateway: GatewayProcess) -> None:
    answer = gateway.post(HELLO)
    assert answer.headers["x-llmroute-origin"] == "upstream"
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-trace-id"])
    assert answer.headers["x-upstream-request-id"] == "req_provider"
    refused = gateway.post(HELLO, key=None)
    assert refused.headers["x-llmroute-origin"] == "gateway"
    assert refused.headers["x-request-id"]
    assert refused.headers["x-trace-id"]


def test_the_clients_ids_are_taken_over_and_sent_on(gateway: GatewayProcess, provider: Provider) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"x-request-id": "from-client-1", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    answer = gateway.post(HELLO, headers=headers)
    assert answer.headers["x-request-id"] == "from-client-1"
    assert answer.headers["x-trace-id"] == trace
    seen = provider.requests[-1].headers
    assert seen["x-request-id"] == "from-client-1"
    assert seen["x-trace-id"] == trace
    assert seen["traceparent"].startswith(f"00-{trace}-")
    assert "00f067aa0ba902b7" not in seen["traceparent"]  # the gateway's own span is the parent now


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer   {KEY}"},
        {"x-api-key": KEY},
        {"x-api-key": KEY, "authorization": f"Bearer {KEY}"},
        {"x-api-key": KEY, "authorization": "Basic dXNlcjpwYXNz"},
    ],
)
def test_a_key_is_taken_from_either_header(gateway: GatewayProcess, headers: dict[str, str]) -> None:
    assert gateway.post(HELLO, key=None, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": KEY},
        {"x-api-key": ""},
        {"x-api-key": KEY, "authorization": "Bearer another"},
        {"authorization": "Bearer key-expired"},
    ],
)
def test_without_a_good_key_the_answer_is_401(gateway: GatewayProcess, headers: dict[str, str]) -> None:
    answer = gateway.post(HELLO, key=None, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert KEY not in answer.text


def test_both_keys_of_a_client_in_rotation_are_good(gateway: GatewayProcess) -> None:
    assert gateway.post(HELLO, key="key-other").status_code == 200
    assert gateway.post(HELLO, key="key-other-new").status_code == 200


def test_a_client_may_use_only_its_models(gateway: GatewayProcess) -> None:
    assert gateway.post({**HELLO, "model": "llama-3"}, key="key-narrow").status_code == 200
    answer = gateway.post(HELLO, key="key-narrow")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "model_not_allowed"


@pytest.mark.parametrize(
    ("fields", "may"),
    [
        ({"models": ["llama-3", "llama-4"], "route": "fallback", "fallbacks": None}, True),
        ({"models": [], "fallbacks": ["llama-4"]}, True),
        ({"metadata": {"models": ["gpt"]}, "messages": [{"fallbacks": ["gpt"]}]}, True),
        ({"models": ["llama-3", "gpt"]}, False),
        ({"models": "gpt"}, False),
        ({"fallbacks": ["gpt"]}, False),
        ({"fallbacks": [{"llama-3": ["gpt"]}]}, False),
        ({"fallbacks": {"model": "gpt"}}, False),
    ],
)
def test_nor_may_the_upstream_fall_back_to_others_for_it(
    gateway: GatewayProcess, provider: Provider, fields: dict[str, object], may: bool
) -> None:
    before = len(provider.requests)
    answer = gateway.post({**HELLO, "model": "llama-3", **fields}, key="key-narrow")
    assert answer.status_code == (200 if may else 403)
    assert len(provider.requests) - before == may
    if not may:
        assert answer.json()["error"]["code"] == "model_not_allowed"
    assert gateway.post({**HELLO, **fields}).status_code == 200  # whose models are not listed


def test_the_credential_replaces_the_clients_key(gateway: GatewayProcess, provider: Provider) -> None:
    gateway.post(HELLO, headers={"x-api-key": KEY, "cookie": "session=1", "openai-organization": "org"})
    seen = provider.requests[-1].headers
    assert seen["authorization"] == "Bearer sk-provider-credential"
    assert seen["x-team"] == "shop"
    assert seen["openai-organization"] == "org"
    assert not seen.keys() & {"x-api-key", "cookie"}


def test_without_a_credential_no_key_is_sent_on(gateway: GatewayProcess, provider: Provider) -> None:
    gateway.post({**HELLO, "model": "llama-3"})
    seen = provider.requests[-1]
    assert seen.path == "/other/base/chat/completions"
    assert "authorization" not in seen.headers
    assert seen.json["model"] == "llama-3"


def test_a_target_may_rename_the_model(gateway: GatewayProcess, provider: Provider) -> None:
    gateway.post({**HELLO, "model": "renamed", "seed": 7})
    assert provider.requests[-1].json == {**HELLO, "model": "gpt-eu", "seed": 7}


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"scarce","messages":[],"model":"gpt"}',
        b'{"m\\u006fdel":"scarce","messages":[],"model":"gpt"}',
        b'{"model":"gpt","m\\u006fdel":"gpt","messages":[]}',
        b'{"model":"gpt","messages":[],"Model":"scarce"}',
        b'{"MODEL":"scarce","model":"gpt","messages":[],"\\u004dodel":"scarce"}',
    ],
)
def test_a_model_that_could_be_read_in_two_ways_is_sent_on_in_one(
    gateway: GatewayProcess, provider: Provider, body: bytes
) -> None:
    assert gateway.post(body).status_code == 200
    assert provider.requests[-1].body.count(b"gpt") == 1
    assert b"scarce" not in provider.requests[-1].body
    assert b"\\u006f" not in provider.requests[-1].body


def test_an_unknown_model_is_404(gateway: GatewayProcess) -> None:
    answer = gateway.post({**HELLO, "model": "unheard-of"})
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "the model 'unheard-of' does not exist here; GET /v1/models lists them",
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }


def test_a_limit_counts_down_and_then_refuses(gateway: GatewayProcess) -> None:
    body = {**HELLO, "model": "limited"}
    remaining = []
    for _ in range(3):
        answer = gateway.post(body)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        remaining.append(answer.headers["x-ratelimit-remaining-requests"])
    assert remaining == ["2", "1", "0"]
    before = gateway.metric("gateway_rate_limited_total")
    refused = gateway.post(body)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "requests")
    assert "'three'" in error["message"]
    assert 0 < int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert re.fullmatch(r"(\d+h)?(\d+m)?\d+s", refused.headers["x-ratelimit-reset-requests"])
    assert gateway.metric("gateway_rate_limited_total") == before + 1
    assert gateway.post(body, key="key-other").status_code == 200  # counted apart


def test_models_lists_what_the_client_may_use(gateway: GatewayProcess) -> None:
    def listed(key: str) -> list[str]:
        document = gateway.get("/v1/models", headers={"x-api-key": key}).json()
        assert document["object"] == "list"
        return [model["id"] for model in document["data"]]

    assert listed(KEY) == ["gpt", "limited", "renamed", "scarce"]
    assert listed("key-narrow") == ["limited"]  # of `chat` it may use llama* alone; `limited` says nothing of it
    assert gateway.get("/v1/models").status_code == 401


def test_the_small_endpoints_answer_without_a_key(gateway: GatewayProcess) -> None:
    assert gateway.get("/health").json() == {"status": "ok"}
    assert gateway.get("/ready").json() == {"status": "ready"}
    breakers = gateway.get("/v1/circuit-breakers").json()["circuit_breakers"]
    assert {(breaker["upstream"], breaker["state"]) for breaker in breakers} == {
        ("provider", "closed"),
        ("uncredentialed", "closed"),
    }
    assert gateway.get("/health").headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("HEAD", "/v1/chat/completions", 405, None),
        ("OPTIONS", "/v1/chat/completions", 405, "method_not_allowed"),
        ("OPTIONS", "/nothing", 404, "unknown_url"),
        ("GET", "/v1/made-up", 404, "unknown_url"),
        ("POST", "/nothing", 404, "unknown_url"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
def test_other_paths_and_methods_are_refused_in_the_same_shape(
    gateway: GatewayProcess, method: str, path: str, status: int, code: str | None
) -> None:
    answer = gateway._client.request(method, gateway.url + path, headers={"x-api-key": KEY})
    assert answer.status_code == status
    assert (answer.json()["error"]["code"] if answer.content else None) == code
    assert ("allow" in answer.headers) is (status == 405)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "did you mean /v1/chat/completions?"),
        ("/v1/v1/messages", "its base URL must end without it"),
        ("/nothing", "there is no POST /nothing here"),
    ],
)
def test_a_wrong_base_url_is_told_as_such(gateway: GatewayProcess, path: str, meant: str) -> None:
    answer = gateway._client.post(gateway.url + path, headers={"x-api-key": KEY}, json={"model": "m"})
    assert answer.status_code == 404
    assert meant in answer.text


def test_a_call_to_the_admin_port_is_told_where_calls_go(gateway: GatewayProcess) -> None:
    answer = gateway._client.post(f"{gateway.admin_url}/v1/chat/completions", json={"model": "m"})
    assert answer.status_code == 404
    assert "calls to models go to the data port" in answer.text


@pytest.mark.parametrize(("path", "body"), [("/v1/files", {"purpose": "batch"}), ("/v1/responses/resp_1/cancel", b"")])
def test_an_endpoint_that_is_not_served_is_told_from_a_mistake_in_the_body(
    gateway: GatewayProcess, path: str, body: object
) -> None:
    answer = gateway.post(body, path)
    assert answer.status_code == 400
    assert f"; {path} is no endpoint of the gateway's" in answer.json()["error"]["message"]


def test_the_connection_to_the_provider_is_used_again(gateway: GatewayProcess, provider: Provider) -> None:
    gateway.post(HELLO)
    before = provider.connections
    for _ in range(20):
        assert gateway.post(HELLO).status_code == 200
    assert provider.connections == before


def test_a_request_leaves_one_log_line_with_all_fields(gateway: GatewayProcess) -> None:
    secret_prompt = "canary-in-a-prompt"
    answer = gateway.post({**HELLO, "user": secret_prompt}, headers={"x-request-id": "log-me-1"})
    assert answer.status_code == 200
    line = gateway.request_line("log-me-1")
    assert line["level"] == "info"
    assert line["logger"] == "llmroute.request"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["upstream"], line["model"], line["client"]) == ("provider", "gpt", "app")
    assert line["client_ip"] == "127.0.0.1"
    assert line["duration_ms"] > 0
    assert {"timestamp", "message", "trace_id", "fallback_model", "attempts"} <= line.keys()
    log = gateway.log_path.read_text()
    assert secret_prompt not in log
    assert KEY not in log
    assert "sk-provider-credential" not in log


def test_the_eight_metrics_count(gateway: GatewayProcess) -> None:
    path = "/v1/chat/completions"
    before = gateway.metric("gateway_requests_total", method="POST", path=path, status="200")
    upstream_before = gateway.metric("gateway_upstream_requests_total", upstream="provider", status="200")
    gateway.post(HELLO)
    assert gateway.metric("gateway_requests_total", method="POST", path=path, status="200") == before + 1
    assert gateway.metric("gateway_upstream_requests_total", upstream="provider", status="200") == upstream_before + 1
    assert gateway.metric("gateway_request_latency_seconds_count", method="POST", path=path) > 0
    assert gateway.metric("gateway_upstream_latency_seconds_count", upstream="provider") > 0
    text = gateway.get("/metrics").text
    for name in (
        "gateway_requests_total",
        "gateway_request_latency_seconds",
        "gateway_in_flight_requests",
        "gateway_upstream_requests_total",
        "gateway_upstream_latency_seconds",
        "gateway_rate_limited_total",
        "gateway_circuit_open_total",
        "gateway_fallback_used_total",
    ):
        assert f"# TYPE {name} " in text, name


def test_paths_of_scanners_make_no_new_series(gateway: GatewayProcess) -> None:
    for number in range(20):
        gateway.get(f"/admin-{number}.php")
        gateway.post(HELLO, path=f"/v1/made-up-{number}")
    text = gateway.get("/metrics").text
    assert "admin-" not in text
    assert "made-up-" not in text
    assert 'path="/v1/*"' in text


def test_status_tells_revision_routes_and_models(gateway: GatewayProcess) -> None:
    status = gateway.status()
    assert status["ready"] is True
    assert status["healthy"] is True
    assert status["revision"] == status["wanted_revision"]
    assert [route["name"] for route in status["routes"]] == ["chat", "limited"]
    assert all(route["accepted"] for route in status["routes"])
    assert status["models"] == ["gpt", "limited", "llama*", "renamed", "scarce"]
