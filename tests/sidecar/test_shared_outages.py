"""The shared state killed, stopped, slowed and locked, during calls: no call hangs, each route does as it says, and all
is as before once the server is back.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway_process import KEY, GatewayProcess, running, spec, write_secret
from tests.sidecar.certificates import Authority
from tests.sidecar.test_shared_calls import ask, is_down, is_up, limit
from tests.state_server import StateServer, serving_state
from tests.waiting import HANGS_AFTER, wait_until

pytestmark = pytest.mark.server

HOUR = {"window": "1h"}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateServer]:
    with serving_state(tmp_path / "state") as state:
        yield state


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, StateServer]]:
    """A gateway that waits long for its server; each test writes routes of its own, with limits of other names."""
    folder = tmp_path_factory.mktemp("patient")
    with serving_state(folder / "state") as state:
        url = state.url.replace("2s", "10s")
        with running(folder / "gateway", {"chat": spec("mock://local")}, "--shared-state-url", url) as gateway:
            yield gateway, state


@pytest.fixture
def gateway(patient: tuple[GatewayProcess, StateServer]) -> GatewayProcess:
    gateway, state = patient
    if state.process is None:  # the test before has killed it
        state.start()
    state.ask("FLUSHALL")
    is_up(gateway)
    return gateway


@pytest.fixture
def its_state(patient: tuple[GatewayProcess, StateServer]) -> StateServer:
    return patient[1]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def route(*limits: dict[str, Any], when: str = "FailOpen") -> dict[str, Any]:
    return spec("mock://local?tokens=1", limits=list(limits), sharedState={"whenUnavailable": when})


def gateway_at(
    stack: ExitStack, folder: Path, url: str, *limits: dict[str, Any], when: str = "FailOpen", secret: str = ""
) -> GatewayProcess:
    arguments = ["--shared-state-url", url]
    if secret:
        arguments += ["--shared-state-secret", secret]
    return stack.enter_context(running(folder, {"chat": route(*limits, when=when)}, *arguments))


def changes(gateway: GatewayProcess) -> list[tuple[str, str | None]]:
    """What the log says of the shared state, change by change."""
    lines = [line for line in gateway.lines if line["logger"] == "llmroute.shared_state"]
    return [(line["message"], line.get("reason")) for line in lines]


def test_fail_open_counts_in_the_pod_while_the_server_is_gone_and_together_again_after(
    gateway: GatewayProcess, its_state: StateServer
) -> None:
    def fallbacks() -> float:
        return gateway.metric("llmroute_shared_state_fallbacks_total", decision="fail_open")

    gateway.write({"chat": route(limit("few", requests=3, **HOUR))})
    assert ask(gateway).headers["x-ratelimit-remaining-requests"] == "2"
    before, told_before = fallbacks(), len(changes(gateway))
    its_state.kill()
    is_down(gateway)
    assert [ask(gateway).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert fallbacks() - before == 4
    assert gateway.metric("llmroute_shared_state_up") == 0
    its_state.start()
    is_up(gateway)
    assert ask(gateway).headers["x-ratelimit-remaining-requests"] == "1"
    reached = ("shared state reached", None)
    wait_until(lambda: changes(gateway)[-1] == reached, "the log to say that it is back")
    assert changes(gateway)[0] == reached
    told = changes(gateway)[told_before:]
    assert told[0][0] == "shared state not reached"
    assert len(told) <= 3  # the end of the connection, and that nobody listens


def test_fail_closed_refuses_those_whose_limits_cannot_be_counted_and_no_other(
    gateway: GatewayProcess, its_state: StateServer
) -> None:
    shared = limit("some", per="Client", requests=100, **HOUR)
    gateway.write({"chat": route(shared, when="FailClosed")})
    assert ask(gateway).status_code == 200
    its_state.kill()
    is_down(gateway)
    refused = ask(gateway)
    assert refused.status_code == 503
    assert refused.json()["error"] == {
        "message": "a limit that pods count together cannot be counted now; try again later",
        "type": "server_error",
        "param": None,
        "code": "limits_unavailable",
    }
    assert refused.headers["retry-after"] == "1"
    assert "x-should-retry" not in refused.headers
    gateway.write({"chat": route({"name": "pod", "per": "Client", "requests": 100}, when="FailClosed")})
    assert ask(gateway).status_code == 200
    gateway.write({"chat": route(shared, when="FailClosed")})
    its_state.start()
    is_up(gateway)
    assert ask(gateway).headers["x-ratelimit-remaining-requests"] == "98"


def test_fail_closed_of_an_upstream_passes_it_over(gateway: GatewayProcess, its_state: StateServer) -> None:
    gateway.write({"chat": route(limit("first", per="Upstream", requests=100, **HOUR), when="FailClosed")})
    its_state.kill()
    is_down(gateway)
    assert ask(gateway).json()["error"]["code"] == "limits_unavailable"
    assert gateway.metric("llmroute_attempts_total", upstream="provider", reason="limits_unavailable") == 1


@contextmanager
def calling(gateway: GatewayProcess, models: Sequence[str]) -> Iterator[dict[str, list[tuple[int, float]]]]:
    """Calls of each model all the while; (status, seconds) of each call, by its model."""
    calls: dict[str, list[tuple[int, float]]] = {model: [] for model in models}
    going = True

    def work(model: str) -> None:
        body = json.dumps({"model": model, "messages": []}).encode()
        with httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=HANGS_AFTER) as client:
            while going:
                began = time.monotonic()
                status = client.post(gateway.url + "/v1/chat/completions", content=body).status_code
                calls[model].append((status, time.monotonic() - began))

    with ThreadPoolExecutor(2 * len(models)) as pool:
        working = [pool.submit(work, model) for model in (*models, *models)]
        try:
            yield calls
        finally:
            going = False
            for each in working:
                each.result()


@pytest.fixture(scope="module")
def gateway_under_load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, StateServer]]:
    """One route goes on when the server is gone, the other does not."""
    limits = [limit("many", requests=1_000_000, **HOUR), limit("slots", concurrency=4)]
    closed = route(*limits, when="FailClosed")
    closed["models"][0]["name"] = "strict"
    closed["upstreams"][0]["name"] = "provider-of-closed"
    closed["models"][0]["targets"][0]["upstream"] = "provider-of-closed"
    folder = tmp_path_factory.mktemp("under-load")
    with serving_state(folder / "state") as state:
        url = state.url.replace("2s", "200ms")
        routes = {"open": route(*limits), "closed": closed}
        with running(folder / "gateway", routes, "--shared-state-url", url) as gateway:
            yield gateway, state


@pytest.mark.parametrize("how", ["stopped", "paused", "killed"])
def test_no_call_hangs_whatever_becomes_of_the_server_under_load(
    gateway_under_load: tuple[GatewayProcess, StateServer], how: str
) -> None:
    gateway, state = gateway_under_load
    away: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "stopped": (state.stop, state.go_on),
        # All that is asked of it writes, so it waits; UNPAUSE does not.
        "paused": (lambda: state.ask("CLIENT", "PAUSE", 60_000, "WRITE"), lambda: state.ask("CLIENT", "UNPAUSE")),
        "killed": (state.kill, state.start),
    }
    goes, comes_back = away[how]
    is_up(gateway)
    with calling(gateway, ["gpt", "strict"]) as calls:

        def served(number: int, status: int, strict: int) -> None:
            so_far = {model: len(told) for model, told in calls.items()}

            def heard(model: str, wanted: int) -> bool:
                return [one for one, _ in calls[model][so_far[model] :]].count(wanted) >= number

            what = f"{number} answers {status}, and {strict} where it must be counted together"
            wait_until(lambda: heard("gpt", status) and heard("strict", strict), what)

        served(20, 200, 200)
        for _ in range(2):
            goes()
            is_down(gateway)
            served(20, 200, 503)
            comes_back()
            is_up(gateway)
            served(20, 200, 200)
    assert {status for status, _ in calls["gpt"]} <= {200, 429}
    assert {status for status, _ in calls["strict"]} <= {200, 429, 503}
    waits = [seconds for told in calls.values() for _, seconds in told]
    assert max(waits) < 5, max(waits)  # the bound is 0.2 s; the machine may be busy
    holds_no_slot(gateway, state)


def holds_no_slot(gateway: GatewayProcess, state: StateServer) -> None:
    """What the server has of slots ends by itself: the gateway gives no sign of life for any. It does so for all that
    it holds whenever it has found its server again, before it asks anything else."""

    def slots() -> dict[str, str]:
        found: dict[str, str] = {}
        for route_of in ("open", "closed"):
            told = state.ask("ZRANGE", f"llmroute:{{tests/default}}:slots:{route_of}/slots:", 0, -1, "WITHSCORES")
            found |= dict(zip(told[0::2], told[1::2], strict=True))
        return found

    def reached() -> int:
        return changes(gateway).count(("shared state reached", None))

    before, times = slots(), reached()
    state.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait_until(lambda: reached() > times, "the gateway to find its server again")
    wait_until(lambda: ask(gateway).status_code == 200, "a call to be counted")
    held = {lease: till for lease, till in slots().items() if before.get(lease, till) != till}
    assert held == {}, "slots that the gateway holds, with no call under way"


def test_a_client_that_leaves_while_the_server_is_asked_leaves_nothing_counted(
    gateway: GatewayProcess, its_state: StateServer
) -> None:
    from tests.sidecar.test_slot_calls import left_open

    limits = [limit("many", requests=100, **HOUR), limit("tokens", tokens=100_000, **HOUR), limit("one", concurrency=1)]
    gateway.write({"chat": route(*limits)})
    its_state.stop()
    clients = [left_open(gateway, str(number)) for number in range(10)]
    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 10, "the calls to be under way")
    for client in clients:
        client.close()
    wait_until(lambda: gateway.metric("gateway_in_flight_requests") == 0, "the calls to be over")
    its_state.go_on()
    is_up(gateway)

    def left() -> tuple[str, ...] | None:
        answer = ask(gateway, max_tokens=1)
        if answer.status_code == 429:  # counted nowhere: the slot is not given back yet
            return None
        return tuple(answer.headers.get(f"x-ratelimit-remaining-{kind}", "") for kind in ("requests", "tokens"))

    first = wait_until(left, "the slot to be given back")
    assert first is not None
    assert first[0] == "99"
    assert int(first[1]) > 99_900
    assert ask(gateway).headers["x-ratelimit-remaining-requests"] == "98"


def test_what_was_spent_while_the_server_was_gone_is_told_when_it_is_back(
    gateway: GatewayProcess, its_state: StateServer
) -> None:
    budget = limit("spend", budget={"usd": "100", "period": "Month"})
    prices = [{"model": "*", "inputPerMillion": "0", "outputPerMillion": "1000000"}]  # a dollar for a token
    gateway.write({"chat": {**route(budget), "prices": prices}})
    its_state.kill()
    is_down(gateway)
    assert ask(gateway, max_tokens=1).status_code == 200
    its_state.start()
    key = "llmroute:{tests/default}:budget:chat/spend:"
    wait_until(lambda: its_state.ask("HGET", key, "spent") == str(10**9), "the dollar to be told")


def test_a_wrong_password_is_told_in_a_word_and_the_right_one_is_taken_over(stack: ExitStack, tmp_path: Path) -> None:
    right = "canary-right"
    state = stack.enter_context(serving_state(tmp_path / "state", "--requirepass", right, password=right))
    folder = tmp_path / "gateway"
    write_secret(folder / "secrets", "state", {"note": "not an entry of ours"})
    gateway = gateway_at(stack, folder, state.url, limit("few", requests=3, **HOUR), secret="state")

    def told(reason: str) -> bool:
        return bool(gateway.status()["shared_state"]["reason"] == reason)

    assert is_down(gateway) == "password_missing"
    write_secret(folder / "secrets", "state", {"password": "canary-wrong"})
    wait_until(lambda: told("password_wrong"), "the password to be refused")
    (folder / "secrets" / "state" / "password").unlink()
    wait_until(lambda: told("password_missing"), "the password to be missed")
    write_secret(folder / "secrets", "state", {"username": "canary-nobody", "password": "canary-right"})
    wait_until(lambda: told("password_wrong"), "the user to be refused")
    (folder / "secrets" / "state" / "username").unlink()
    write_secret(folder / "secrets", "state", {"password": right + "\n"})
    is_up(gateway)
    assert ask(gateway).headers["x-ratelimit-remaining-requests"] == "2"
    assert "canary" not in gateway.log_path.read_text() + json.dumps(gateway.status())


def test_tls_with_a_private_ca_and_a_client_certificate(stack: ExitStack, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "stranger")
    certificate, key = authority.certificate()
    options = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", tmp_path / "ca" / "ca.crt")
    state = stack.enter_context(serving_state(tmp_path / "state", *map(str, options), tls=True))
    folder = tmp_path / "gateway"
    shown, shown_key = authority.certificate("DNS:gateway")
    client = {"tls.crt": shown.read_text(), "tls.key": shown_key.read_text()}
    write_secret(folder / "secrets", "state", {"ca.crt": stranger.pem, **client})
    gateway = gateway_at(stack, folder, state.url, limit("few", requests=3, **HOUR), secret="state")
    assert is_down(gateway) == "tls_untrusted"
    write_secret(folder / "secrets", "state", {"ca.crt": authority.pem})
    is_up(gateway)
    assert ask(gateway).headers["x-ratelimit-remaining-requests"] == "2"
    write_secret(folder / "secrets", "state", {"ca.crt": "no certificate"})
    wait_until(lambda: gateway.status()["shared_state"]["reason"] == "tls_secret_invalid", "the CA to be refused")


def test_an_address_that_is_none_is_told_when_the_gateway_starts(tmp_path: Path) -> None:
    import subprocess

    from tests.gateway_process import COMMAND

    command = [str(COMMAND), "serve", "--shared-state-url", "redis://user:canary@state"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--shared-state-url must not hold a user or password" in done.stderr
    assert "canary" not in done.stderr


def test_a_gateway_without_a_shared_state_loads_nothing_of_it(stack: ExitStack, tmp_path: Path) -> None:
    gateway = stack.enter_context(running(tmp_path, {"chat": spec("mock://local?tokens=1")}))
    assert ask(gateway).status_code == 200
    assert gateway.status()["shared_state"] is None
    assert "hiredis" not in Path(f"/proc/{gateway.process.pid}/maps").read_text()


def test_environment_alone_counts_over_all_processes(stack: ExitStack, state: StateServer, tmp_path: Path) -> None:
    from tests.gateway_process import end, start

    environment = {
        "GATEWAY_SHARED_STATE_URL": state.url,
        "GATEWAY_RATE_LIMIT_PER_MINUTE": "2",
        "GATEWAY_UPSTREAMS": "gpt=mock://local?tokens=1",
    }
    gateways = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        gateways.append(start(tmp_path / name, environment=environment, config=False))
        stack.callback(end, gateways[-1])
        is_up(gateways[-1])
    answers = [gateways[number % 2].post({"model": "gpt", "messages": []}, key="dev-key") for number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
