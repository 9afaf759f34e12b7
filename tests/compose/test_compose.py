"""The Compose stack: Compose takes the file, its parts fit one another, and they run together as it wires them."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import yaml

from monitoring.rules import groups
from tests import chat_app
from tests.cluster.control_plane import REPOSITORY
from tests.cluster.go_build import Unavailable
from tests.compose.compose_go import Refused, ensure_loader, load
from tests.compose.native import Program, Stack, stack_of
from tests.gateway_process import COMMAND
from tests.state_server import find_server
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(300)  # Compose's loader is built once
FOLDER = REPOSITORY / "examples" / "compose"
FILE = FOLDER / "compose.yaml"
NATIVE = ("valkey", "gateway", "app", "prometheus", "traffic")
Document = dict[str, Any]


def absent(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def loader() -> Path:
    try:
        return ensure_loader()
    except Unavailable as reason:
        absent(f"Compose's loader cannot be built: {reason}")
        raise


@pytest.fixture(scope="module")
def project(loader: Path) -> Document:
    return load(loader, FILE)


def test_compose_takes_the_file(project: Document) -> None:
    assert set(project["services"]) >= {"gateway", "valkey", "prometheus", "grafana", "app", "traffic"}


def test_compose_refuses_what_its_specification_does_not_know(loader: Path, tmp_path: Path) -> None:
    """So that the test above says something."""
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("healthcheck:", "healthchek:", 1))
    with pytest.raises(Refused, match="healthchek"):
        load(loader, wrong)


def test_every_mounted_file_is_in_the_repository(project: Document) -> None:
    for service in project["services"].values():
        for volume in service.get("volumes") or ():
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume["source"]
                assert Path(volume["source"]).is_relative_to(REPOSITORY)


def test_every_container_is_held_tight(project: Document) -> None:
    for name, service in project["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {port["host_ip"] for port in service.get("ports") or ()} <= {"127.0.0.1"}, name


@pytest.mark.parametrize(("service", "context"), [("gateway", REPOSITORY), ("app", chat_app.FOLDER)])
def test_an_image_is_one_that_this_repository_builds(project: Document, service: str, context: Path) -> None:
    build = project["services"][service]["build"]
    assert Path(build["context"]) == context
    assert (context / build["dockerfile"]).exists()


def test_grafana_finds_prometheus_and_the_dashboards(project: Document) -> None:
    """Grafana is not to be had here: that the files agree with one another and with the stack is what can be seen."""
    [source] = yaml.safe_load((FOLDER / "grafana/datasources/prometheus.yaml").read_text())["datasources"]
    url = urlsplit(source["url"])
    assert url.hostname in project["services"]
    assert url.port in [port["target"] for port in project["services"][url.hostname]["ports"]]
    [provider] = yaml.safe_load((FOLDER / "grafana/dashboards/llmroute.yaml").read_text())["providers"]
    grafana = project["services"]["grafana"]
    mounts = {volume["target"]: volume["source"] for volume in grafana["volumes"]}
    dashboards = Path(mounts[provider["options"]["path"]])
    assert {json.loads(path.read_text())["uid"] for path in dashboards.iterdir()} == {
        "llmroute-overview",
        "llmroute-gateway",
        "llmroute-operator",
    }
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (dashboards / home.name).exists()


@pytest.fixture(scope="module")
def stack(project: Document, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        absent("a network namespace needs root and iproute2")
    valkey = find_server("valkey") or find_server("redis")
    prometheus = shutil.which("prometheus")
    if valkey is None or prometheus is None:
        absent("there is no Valkey or Redis, or no Prometheus: apt-get install redis-server prometheus")
    assert valkey is not None
    assert prometheus is not None
    programs = {
        "valkey": Program(valkey),
        "gateway": Program(str(COMMAND)),
        "app": Program(str(chat_app.UVICORN), chat_app.image_arguments(), {"/app": chat_app.FOLDER}),
        "prometheus": Program(prometheus),
        "traffic": Program("sh"),
    }
    with ExitStack() as entered:
        folder = tmp_path_factory.mktemp("compose")
        stack = entered.enter_context(stack_of(project, folder, dict.fromkeys(project["services"], "127.0.0.1")))
        for service in NATIVE:
            stack.start(service, programs[service])
            if service == "gateway":
                wait_until(lambda: stack.all_live() and stack.get("http://gateway:8791/ready"), "the gateway")
        yield stack


def result(stack: Stack, query: str) -> list[Document]:
    answer = stack.get(f"http://prometheus:9090/api/v1/query?query={quote(query)}")
    found: list[Document] = json.loads(answer)["data"]["result"] if answer else []
    return found


@pytest.mark.server
def test_the_stacks_app_is_answered_through_its_gateway(stack: Stack) -> None:
    wait_until(lambda: stack.all_live() and "<title>Chat" in stack.get("http://app:8000/"), "the app")
    assert json.loads(stack.get("http://app:8000/models")) == ["chat", "unsteady"]
    asked = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hi"}]})
    first, *pieces, last = map(json.loads, stack.get("http://app:8000/chat", "--data", asked).splitlines())
    assert first == {"upstream": "steady", "fallback": None}
    assert "mock upstream" in "".join(piece["text"] for piece in pieces)
    assert last == {"end": True}


@pytest.mark.server
def test_calls_of_the_stacks_caller_are_seen_in_its_prometheus(stack: Stack) -> None:
    def seen() -> list[Document]:
        stack.all_live()
        return result(stack, 'sum by (gateway) (rate(gateway_requests_total{method="POST", status="200"}[30s])) > 0')

    [series] = wait_until(seen, "calls in Prometheus", every=0.5)
    assert series["metric"] == {"gateway": "default"}


@pytest.mark.server
def test_fallbacks_and_costs_of_the_demo_are_seen(stack: Stack) -> None:
    def seen() -> bool:
        stack.all_live()
        return bool(result(stack, 'gateway_fallback_used_total{from_model="unsteady", to_model="chat"}')) and bool(
            result(stack, 'llmroute_cost_usd_total{model="chat"}')
        )

    wait_until(seen, "a fallback and costs in Prometheus", every=0.5)


@pytest.mark.server
def test_the_stacks_rules_are_loaded(stack: Stack) -> None:
    answer = json.loads(stack.get("http://prometheus:9090/api/v1/rules"))
    names = {group["name"] for group in answer["data"]["groups"]}
    assert names == {group.name for group in groups()}


@pytest.mark.server
def test_limits_of_scope_gateway_are_counted_in_the_stacks_valkey(stack: Stack) -> None:
    wait_until(lambda: stack.all_live() and result(stack, "llmroute_shared_state_up == 1"), "the shared state")
