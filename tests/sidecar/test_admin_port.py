"""The admin port as programs see it: what it answers to what it does not serve, its headers, its description, and what
it costs a gateway that nobody looks at. What its lists say is test_listings.py's, its pages test_admin_page.py's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway_process import GatewayProcess, end, running, spec, start

pytestmark = pytest.mark.server

JSON_PATHS = ["/status", "/models", "/limits", "/requests", "/v1/circuit-breakers"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    limits = [{"name": "calls", "per": "Client", "requests": 100, "window": "60s"}]
    with running(tmp_path_factory.mktemp("gateway"), {"chat": spec("mock://local", limits=limits)}) as gateway:
        assert gateway.post({"model": "gpt", "messages": []}).status_code == 200
        yield gateway


@pytest.fixture(scope="module")
def admin(gateway: GatewayProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.admin_url, timeout=30) as client:
        yield client


def test_what_is_not_there_is_told_in_the_form_of_all_errors(admin: httpx.Client) -> None:
    answer = admin.get("/nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"
    answer = admin.post("/status", json={})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/metrics", "/ready", *JSON_PATHS])
def test_head_tells_what_get_would(admin: httpx.Client, path: str) -> None:
    answer = admin.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == admin.get(path).headers["content-type"]


def test_each_answer_has_its_ids_and_takes_over_given_ones(admin: httpx.Client) -> None:
    assert admin.get("/status", headers={"x-request-id": "asked-by-me"}).headers["x-request-id"] == "asked-by-me"
    assert admin.get("/nothing").headers["x-request-id"]


def test_a_body_that_nobody_asked_for_is_bounded(admin: httpx.Client) -> None:
    assert admin.request("GET", "/status", content=b"x" * 1000).status_code == 200
    assert admin.request("GET", "/status", content=b"x" * 100_000).status_code == 413


def test_nothing_that_is_asked_here_is_counted_or_kept(gateway: GatewayProcess, admin: httpx.Client) -> None:
    before = gateway.metric("gateway_requests_total", path="other", method="GET", status="404")
    admin.get("/nothing")
    assert gateway.metric("gateway_requests_total", path="other", method="GET", status="404") == before
    assert [call["path"] for call in admin.get("/requests").json()["requests"]] == ["/v1/chat/completions"]


@pytest.mark.parametrize("path", JSON_PATHS)
def test_an_answer_is_what_its_description_says(admin: httpx.Client, path: str) -> None:
    """Each field of the answer is described, and each that is described as always there is there."""
    document = admin.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    _matches(admin.get(path).json(), schema, document["components"]["schemas"], path)


def _matches(value: Any, schema: dict[str, Any], named: dict[str, Any], where: str) -> None:
    if "$ref" in schema:
        schema = named[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        options = [one for one in schema["anyOf"] if (one.get("type") == "null") == (value is None)]
        assert options, where
        schema = options[0]
        if "$ref" in schema:
            schema = named[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, dict):
        assert set(schema["required"]) <= set(value) <= set(schema["properties"]), where
        for field, inner in value.items():
            _matches(inner, schema["properties"][field], named, f"{where}.{field}")
    elif isinstance(value, list):
        assert schema["type"] == "array", where
        for one in value:
            _matches(one, schema["items"], named, f"{where}[]")


def test_a_gateway_that_serves_from_its_files_loads_nothing_that_reads_routes(gateway: GatewayProcess) -> None:
    """Pydantic and PyYAML are for `llmroute run` and `validate`; in each pod they would be memory for nothing."""
    loaded = Path(f"/proc/{gateway.process.pid}/maps").read_text()
    assert "msgspec" in loaded
    assert "pydantic" not in loaded
    assert "yaml" not in loaded


def test_one_that_serves_from_variables_does(tmp_path: Path) -> None:
    """So the test above looks at the right thing."""
    gateway = start(tmp_path, environment={"GATEWAY_UPSTREAMS": "gpt=mock://local"}, config=False)
    try:
        assert "pydantic" in Path(f"/proc/{gateway.process.pid}/maps").read_text()
    finally:
        end(gateway)
