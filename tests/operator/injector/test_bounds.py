"""What the webhook's port takes, over TLS: bodies of a bounded size, so many at once; and what it says to the rest."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from llmroute_operator.injector.options import BODY_MAX_BYTES, IN_FLIGHT_MAX
from tests.cluster.control_plane import ControlPlane
from tests.operator.injector.injector_process import InjectorProcess, running_injector
from tests.operator.injector.pods import pod
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def injector(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InjectorProcess]:
    with running_injector(control_plane, tmp_path_factory.mktemp("injector")) as injector:
        yield injector


def trusting(injector: InjectorProcess) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=injector.authority.pem)


def ask(injector: InjectorProcess, body: bytes) -> httpx.Response:
    return httpx.post(f"https://127.0.0.1:{injector.port}/mutate", content=body, verify=trusting(injector), timeout=20)


def review() -> bytes:
    request = {
        "uid": "1",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": "shop",
        "object": pod(labels={"llmroute.dev/inject": "false"}),
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def head(body: bytes) -> bytes:
    return f"POST /mutate HTTP/1.1\r\nhost: injector\r\ncontent-length: {len(body)}\r\n\r\n".encode()


def connected(injector: InjectorProcess, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", injector.port), timeout=30)
    return context.wrap_socket(raw, server_hostname="127.0.0.1")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"apiVersion": "admission.k8s.io/v1beta1"}'],
    ids=["nothing", "half", "a list", "no UTF-8", "100,000 deep", "another version"],
)
def test_a_body_that_is_no_review_is_a_bad_request(injector: InjectorProcess, body: bytes) -> None:
    answer = ask(injector, body)
    assert answer.status_code == 400
    assert "is no AdmissionReview of admission.k8s.io/v1" in answer.text


@pytest.mark.parametrize("metadata", [b"null", b"[]", b'"x"'])
def test_a_pod_whose_metadata_is_none_is_refused_as_no_pod(injector: InjectorProcess, metadata: bytes) -> None:
    question = json.loads(review())
    question["request"]["object"]["metadata"] = json.loads(metadata)
    answer = ask(injector, json.dumps(question).encode())
    assert answer.status_code == 200
    assert answer.json()["response"]["allowed"] is False


def test_a_body_above_the_bound_is_refused_and_the_next_one_served(injector: InjectorProcess) -> None:
    assert ask(injector, review() + b" " * BODY_MAX_BYTES).status_code == 413
    assert ask(injector, review()).json()["response"] == {"uid": "1", "allowed": True}


def test_more_admissions_at_once_than_the_bound_are_told_to_try_again(injector: InjectorProcess) -> None:
    """Each of those under way has said how long its body is, and keeps back the rest of it."""
    body = review()
    context = trusting(injector)

    def under_way(number: int) -> bool:
        return f"llmroute_injector_admissions_in_flight {number}.0" in injector.get("/metrics").text

    with ExitStack() as stack:
        waiting = [stack.enter_context(connected(injector, context)) for _ in range(IN_FLIGHT_MAX)]
        for one in waiting:
            one.sendall(head(body) + body[:10])
        wait_until(lambda: under_way(IN_FLIGHT_MAX), "all of them to be under way")
        answer = ask(injector, body)
        assert (answer.status_code, answer.text) == (503, "too many admissions at once; try again")
        assert 'llmroute_injector_admissions_total{result="overloaded"} 1.0' in injector.get("/metrics").text
        for one in waiting:
            one.sendall(body[10:])
            assert one.recv(64).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: under_way(0), "none to be under way")
    assert ask(injector, body).status_code == 200


def test_who_keeps_back_the_rest_of_a_body_loses_the_place(injector: InjectorProcess) -> None:
    body = review()
    with connected(injector, trusting(injector)) as one:
        one.sendall(head(body) + body[:10])
        assert one.recv(64).startswith(b"HTTP/1.1 408 ")
