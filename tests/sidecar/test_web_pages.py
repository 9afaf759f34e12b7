"""What a page in a browser on the gateway's machine reaches of it: a real gateway, raw sockets, a real browser."""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser import looking_at
from tests.gateway_process import KEY, GatewayProcess, end, running, spec, start
from tests.waiting import wait_until

pytestmark = pytest.mark.server
CHAT = "/v1/chat/completions"
BODY = b'{"model":"free","messages":[]}'
OPEN = {
    "auth": {"mode": "None"},
    "upstreams": [{"name": "mock", "url": "mock://local"}],
    "models": [{"name": "free", "targets": [{"upstream": "mock"}]}],
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One route asks for no key, the other does."""
    routes = {"free": OPEN, "keyed": spec("mock://local")}
    with running(tmp_path_factory.mktemp("gateway"), routes, "--allow-host=llm.corp") as gateway:
        yield gateway


def ask(address: str, port: int, line: str, *headers: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a request that says just this."""
    length = [f"content-length: {len(body)}"] if body else []
    head = "\r\n".join([f"{line} HTTP/1.1", *headers, *length, "connection: close", "", ""])
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        got = b""
        while part := connection.recv(65536):
            got += part
    told, _, content = got.partition(b"\r\n\r\n")
    status, *lines = told.decode().split("\r\n")
    return int(status.split(" ")[1]), dict(line.lower().split(": ", 1) for line in lines), content


def code(content: bytes) -> str:
    error = json.loads(content)["error"]
    assert error["message"]
    return str(error["code"])


@pytest.mark.parametrize("path", ["/", "/status", "/requests", "/docs", "/openapi.json", "/metrics", "/nothing"])
def test_the_admin_port_answers_to_no_name_that_a_pages_owner_could_have(gateway: GatewayProcess, path: str) -> None:
    for host in ("evil.example", f"evil.example:{gateway.admin_port}"):
        status, headers, content = ask("127.0.0.1", gateway.admin_port, f"GET {path}", f"host: {host}")
        assert (status, code(content)) == (403, "host_not_allowed")
        assert "--allow-host" in json.loads(content)["error"]["message"]
        assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "line", [f"POST {CHAT}", "POST /v1/messages", "GET /v1/models", "GET /metrics", "GET /health", f"OPTIONS {CHAT}"]
)
def test_the_data_port_does_not_either_with_a_key_or_without(gateway: GatewayProcess, line: str) -> None:
    for key in ((), (f"authorization: Bearer {KEY}",)):
        body = BODY if "POST" in line else b""
        status, headers, content = ask("127.0.0.1", gateway.port, line, "host: evil.example:8790", *key, body=body)
        assert (status, code(content)) == (403, "host_not_allowed")
        assert headers["x-request-id"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:80", "a.localhost", "llm.corp"])
def test_this_machines_names_are_answered_to_on_both(gateway: GatewayProcess, host: str) -> None:
    assert ask("127.0.0.1", gateway.admin_port, "GET /status", f"host: {host}")[0] == 200
    assert ask("127.0.0.1", gateway.port, f"POST {CHAT}", f"host: {host}", body=BODY)[0] == 200


def test_where_it_listens_on_other_addresses_it_is_called_by_any_name(tmp_path: Path) -> None:
    """As in a pod: the admin port on the pod's address, where probes and Prometheus come, and on loopback, where
    `kubectl port-forward` comes out; a gateway behind a Service on all addresses."""
    mine = _address_of_this_machine()
    both = (f"--admin-host={mine}", "--admin-host=127.0.0.1")
    with _serving(tmp_path, *both) as gateway:
        said = [ask(at, gateway.admin_port, "GET /ready", "host: gateway.shop.svc")[0] for at in (mine, "127.0.0.1")]
        assert said == [200, 403]
        assert ask("127.0.0.1", gateway.admin_port, "GET /ready", "host: localhost:9999")[0] == 200
        assert ask("127.0.0.1", gateway.port, "GET /ready", "host: gateway.shop.svc")[0] == 403
    with _serving(tmp_path, "--host=0.0.0.0", "--admin-host=0.0.0.0") as gateway:
        for port in (gateway.port, gateway.admin_port):
            said = [ask(at, port, "GET /ready", "host: gateway.shop.svc")[0] for at in (mine, "127.0.0.1")]
            assert said == [200, 200]


def test_what_another_sites_page_sends_unasked_is_not_served_without_a_key(gateway: GatewayProcess) -> None:
    at = f"host: 127.0.0.1:{gateway.port}"
    told = ("origin: https://evil.example", "sec-fetch-site: cross-site")
    for kind in ("text/plain;charset=UTF-8", "application/x-www-form-urlencoded"):
        status, headers, content = ask(
            "127.0.0.1", gateway.port, f"POST {CHAT}", at, *told, f"content-type: {kind}", body=BODY
        )
        assert (status, code(content)) == (403, "origin_not_allowed")
        line = gateway.request_line(headers["x-request-id"])
        assert (line["status"], line["model"], line.get("upstream")) == (403, "free", None)
    question = (*told, "access-control-request-method: POST", "access-control-request-headers: content-type")
    status, headers, _ = ask("127.0.0.1", gateway.port, f"OPTIONS {CHAT}", at, *question)
    assert status == 405
    assert not [name for name in headers if name.startswith("access-control-")]  # so nothing else is sent at all


def test_who_else_sends_an_origin_is_served(gateway: GatewayProcess) -> None:
    def called(*headers: str, body: bytes = BODY) -> int:
        return ask("127.0.0.1", gateway.port, f"POST {CHAT}", "host: localhost", *headers, body=body)[0]

    assert called("origin: http://localhost:3000", "sec-fetch-site: same-site") == 200
    assert called("origin: app://chat", "sec-fetch-site: cross-site") == 200
    assert called("origin: https://ui.corp", "sec-fetch-site: same-origin", "content-type: text/plain") == 200
    assert called("origin: https://ui.corp", "content-type: application/json") == 200
    keyed = BODY.replace(b"free", b"gpt")
    assert called("origin: https://ui.corp", f"authorization: Bearer {KEY}", body=keyed) == 200


def test_a_browser_is_kept_from_reading_and_from_spending(browser: Browser, gateway: GatewayProcess) -> None:
    """`*.rebound.test` leads to 127.0.0.1 in this browser, as after a rebinding."""
    post = "body => fetch(`http://${body.at}/v1/chat/completions`, {method: 'POST', mode: 'no-cors', body: body.text})"

    def answered(status: int) -> float:
        return gateway.metric("gateway_requests_total", method="POST", path=CHAT, status=str(status))

    def spend_from(page_url: str, status: int, at: str) -> None:
        before = answered(status)
        with looking_at(browser, page_url) as look:
            look.page.evaluate(f"{post}.then(() => 1)", {"at": at, "text": BODY.decode()})
        wait_until(lambda: answered(status) == before + 1, f"a call from {page_url} to be answered {status}")

    with _some_site() as port:
        spend_from(f"http://evil.rebound.test:{port}", 403, f"127.0.0.1:{gateway.port}")
        spend_from(f"http://localhost:{port}", 200, f"127.0.0.1:{gateway.port}")
        spend_from(f"http://127.0.0.1:{port}", 200, f"localhost:{gateway.port}")
        with looking_at(browser, f"http://evil.rebound.test:{port}") as look:
            look.page.goto(f"http://evil.rebound.test:{gateway.admin_port}/status")
            said = look.page.evaluate("fetch('/status').then(answer => answer.text())")
            assert code(said.encode()) == "host_not_allowed"


@contextmanager
def _serving(folder: Path, *arguments: str) -> Iterator[GatewayProcess]:
    environment = {"GATEWAY_UPSTREAMS": "chat=mock://local"}
    gateway = start(folder, *arguments, environment=environment, config=False)
    try:
        yield gateway
    finally:
        end(gateway)


@contextmanager
def _some_site() -> Iterator[int]:
    """A web server of somebody else's, on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>a site</title>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def _address_of_this_machine() -> str:
    """One that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent
        return str(probe.getsockname()[0])
