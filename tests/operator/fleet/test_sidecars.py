"""Who serves what: real gateways, asked by the real controller, told in the routes."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import gateway_process
from tests.cluster.projection import projected
from tests.gateway_process import GatewayProcess
from tests.operator import controller_process
from tests.operator.controller_process import ControllerProcess
from tests.operator.namespace import Namespace, route
from tests.operator.pods import make_pods, pod, runs_at, sidecars, touched_for

pytestmark = pytest.mark.cluster


@contextmanager
def gateway_at(
    namespace: Namespace, folder: Path, address: str, *secrets: str, pod_name: str = ""
) -> Iterator[GatewayProcess]:
    """A real gateway whose admin port is at `address`, with the files that a pod of the namespace would have."""
    folder.mkdir()
    volumes = {"configmap/llmroute-gateway-default": folder / "config"}
    volumes |= {f"secret/{name}": folder / "secrets" / name for name in secrets}
    with projected(namespace.control_plane, namespace.name, volumes):
        running = gateway_process.start(folder, "--admin-host", address, environment={"POD_NAME": pod_name})
        try:
            yield running
        finally:
            gateway_process.end(running)


OPEN = {"mode": "None"}


def test_a_route_tells_how_many_of_its_pods_serve_it(
    controller: ControllerProcess, namespace: Namespace, tmp_path: Path
) -> None:
    namespace.apply(route("chat", "one", auth=OPEN))
    first = namespace.programmed("chat")
    assert namespace.condition("chat", "Synced", "True", "NoPods") == "No pod has this gateway."
    with (
        gateway_at(namespace, tmp_path / "a", "127.0.9.1") as a,
        gateway_at(namespace, tmp_path / "b", "127.0.9.2") as b,
    ):
        make_pods(namespace, pod("web-1", port=a.admin_port), pod("web-2", port=b.admin_port))
        runs_at(namespace, "web-1", "127.0.9.1")
        runs_at(namespace, "web-2", "127.0.9.2")
        namespace.wait(lambda: sidecars(namespace, "chat") == "2/2", "both pods to be synced")
        message = namespace.condition("chat", "Synced", "True")
        assert message == f"2 of 2 pods serve revision {first}."
        assert namespace.kubectl("get", "llmr").splitlines()[1].split()[:4] == ["chat", "default", "True", "2/2"]
        namespace.apply(route("chat", "two", auth=OPEN))
        second = namespace.programmed("chat")
        namespace.wait(lambda: second in namespace.condition("chat", "Synced", "True"), "the new revision to be served")
        namespace.wait(
            lambda: {touched_for(namespace, "web-1"), touched_for(namespace, "web-2")} == {second},
            "both pods to be touched",
        )


def test_pods_are_touched_when_their_last_route_is_deleted(
    controller: ControllerProcess, namespace: Namespace, tmp_path: Path
) -> None:
    namespace.apply(route("chat", auth=OPEN))
    namespace.programmed("chat")
    with gateway_at(namespace, tmp_path / "a", "127.0.9.9") as a:
        make_pods(namespace, pod("web-1", port=a.admin_port))
        runs_at(namespace, "web-1", "127.0.9.9")
        namespace.wait(lambda: sidecars(namespace, "chat") == "1/1", "the pod to be synced")
        namespace.delete("chat")
        namespace.wait(lambda: namespace.files() == {"gateway.json"}, "the ConfigMap to be emptied")
        empty = namespace.index().revision
        namespace.wait(lambda: touched_for(namespace, "web-1") == empty, "the pod to be touched")


def test_a_pod_that_does_not_answer_is_named_with_the_reason(
    controller: ControllerProcess, namespace: Namespace, tmp_path: Path
) -> None:
    namespace.apply(route("chat", auth=OPEN))
    namespace.programmed("chat")
    with gateway_at(namespace, tmp_path / "a", "127.0.9.3") as a:
        make_pods(namespace, pod("answers", port=a.admin_port), pod("silent", port=9), pod("pending", port=9))
        runs_at(namespace, "answers", "127.0.9.3")
        runs_at(namespace, "silent", "127.0.9.4")
        message = namespace.condition("chat", "Synced", "False", "Unreachable")
        assert "1 of 2 pods serve revision" in message
        assert "silent: no connection to its admin port 9 (refused)." in message
        assert namespace.route("chat")["status"]["sidecars"] == {
            "total": 2,
            "synced": 1,
            "summary": "1/2",
            "samples": [{"pod": "silent", "revision": "", "reason": "no connection to its admin port 9 (refused)"}],
        }
        namespace.kubectl("delete", "pod", "silent", "--force", "--grace-period=0")
        namespace.wait(lambda: sidecars(namespace, "chat") == "1/1", "the pod that is gone to be forgotten")


def test_a_missing_secret_is_told_by_the_pods_and_taken_back_when_it_is_there(
    controller: ControllerProcess, namespace: Namespace, tmp_path: Path
) -> None:
    keyed = {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}}
    namespace.apply(route("chat", auth=keyed))
    namespace.programmed("chat")
    with gateway_at(namespace, tmp_path / "a", "127.0.9.5", "clients") as a:
        make_pods(namespace, pod("web-1", port=a.admin_port, secrets=["clients"]))
        runs_at(namespace, "web-1", "127.0.9.5")
        message = namespace.condition("chat", "ResolvedRefs", "False", "SecretMissing")
        assert message == "spec.auth.keysFrom.secretRef: Secret 'clients' is not there in 1 of 1 pods."
        namespace.kubectl("create", "secret", "generic", "clients", "--from-literal=app=top-secret-value")
        namespace.condition("chat", "ResolvedRefs", "True")
    assert "top-secret-value" not in str(namespace.route("chat"))
    assert "top-secret-value" not in controller.log_path.read_text()


def test_a_client_that_is_named_and_has_no_key_is_told_by_the_pods(
    controller: ControllerProcess, namespace: Namespace, tmp_path: Path
) -> None:
    keyed: dict[str, object] = {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}}
    keyed["clients"] = [{"name": name, "models": ["chat"]} for name in ("web", "wbe", "retired")]
    namespace.apply(route("chat", auth=keyed, logging={"sample": [{"client": "mobile", "rate": 0.5}]}))
    entries = ["--from-literal=web=a-key", "--from-literal=retired=# no key any more", "--from-literal=other=b-key"]
    namespace.kubectl("create", "secret", "generic", "clients", *entries)
    namespace.programmed("chat")
    with gateway_at(namespace, tmp_path / "a", "127.0.9.12", "clients") as a:
        make_pods(namespace, pod("web-1", port=a.admin_port, secrets=["clients"]))
        runs_at(namespace, "web-1", "127.0.9.12")
        assert namespace.condition("chat", "ResolvedRefs", "False", "SecretMissing") == (
            "spec.auth.clients[1].name: entry 'wbe' of Secret 'clients' is not there in 1 of 1 pods. "
            "spec.auth.clients[2].name: entry 'retired' of Secret 'clients' holds no key in 1 of 1 pods. "
            "spec.logging.sample[0].client: entry 'mobile' of Secret 'clients' is not there in 1 of 1 pods."
        )
        added = '{"stringData": {"wbe": "c-key", "retired": "d-key", "mobile": "e-key"}}'
        namespace.kubectl("patch", "secret", "clients", "--type=merge", "-p", added)
        namespace.condition("chat", "ResolvedRefs", "True")


def test_pods_that_do_not_mount_a_needed_secret_are_told_to_be_restarted(
    controller: ControllerProcess, namespace: Namespace, tmp_path: Path
) -> None:
    keyed = {"mode": "Keys", "keysFrom": {"secretRef": {"name": "clients"}}}
    namespace.apply(route("chat", auth=OPEN))
    namespace.programmed("chat")
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4", "uid": "1", "controller": True}
    with (
        gateway_at(namespace, tmp_path / "a", "127.0.9.6") as a,
        gateway_at(namespace, tmp_path / "b", "127.0.9.7", "clients") as b,
    ):
        make_pods(
            namespace,
            pod("old", port=a.admin_port, labels={"pod-template-hash": "5d4"}, ownerReferences=[owner]),
            pod("new", port=b.admin_port, secrets=["clients"]),
        )
        runs_at(namespace, "old", "127.0.9.6")
        runs_at(namespace, "new", "127.0.9.7")
        namespace.wait(lambda: sidecars(namespace, "chat") == "2/2", "both pods to be synced")
        assert "PodRestartRequired" not in namespace.conditions("chat")
        namespace.kubectl("create", "secret", "generic", "clients", "--from-literal=app=key")
        namespace.apply(route("chat", auth=keyed))
        message = namespace.condition("chat", "PodRestartRequired", "True", "SecretNotMounted")
        assert "1 of 2 pods were made before this route needed Secret 'clients', and do not mount it: old." in message
        assert f"kubectl rollout restart -n {namespace.name} deployment/web" in message
        namespace.wait(lambda: sidecars(namespace, "chat") == "2/2", "both pods to serve what they can")
        assert namespace.condition("chat", "ResolvedRefs", "True")
        namespace.kubectl("delete", "pod", "old", "--force", "--grace-period=0")
        namespace.wait(lambda: "PodRestartRequired" not in namespace.conditions("chat"), "the condition to go")


def test_pods_that_ask_for_a_gateway_and_have_none_are_counted_and_named(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    namespace.apply(route("chat"))
    namespace.kubectl("label", "namespace", namespace.name, "llmroute.dev/inject=true")
    make_pods(
        namespace,
        pod("plain", injected=False),
        pod("asks", injected=False, labels={"llmroute.dev/inject": "true"}),
        pod("declines", injected=False, labels={"llmroute.dev/inject": "false"}),
        pod("elsewhere", injected=False, annotations={"llmroute.dev/gateway": "other"}),
        pod("done", injected=False),
        pod("has-one"),
    )
    runs_at(namespace, "done", "127.0.9.8", "Succeeded")
    told = "2 pods of this namespace ask for gateway 'default' and have none: asks, plain."

    def message() -> str:
        return namespace.condition("chat", "PodsWithoutGateway", "True", "NotInjected")

    namespace.wait(lambda: told in message(), "the pod that is done not to be counted")
    assert f"kubectl delete pod -n {namespace.name} NAME" in message()
    assert controller.metric("pods_without_gateway", namespace=namespace.name) == 3
    namespace.kubectl("label", "namespace", namespace.name, "llmroute.dev/inject-")
    namespace.kubectl("delete", "pod", "asks", "--force", "--grace-period=0")
    namespace.wait(lambda: "PodsWithoutGateway" not in namespace.conditions("chat"), "the condition to go")


def test_a_storm_of_edits_to_one_route_ends_in_one_write_of_its_last_state(
    controller: ControllerProcess, namespace: Namespace
) -> None:
    namespace.apply(route("chat", "start"))
    namespace.programmed("chat")
    controller.wait_until_idle()
    before = controller.metric("writes_total", kind="ConfigMap")
    namespace.apply(*(route("chat", f"model-{number}") for number in range(20)))
    namespace.wait(lambda: [one.name for one in namespace.compiled("chat").models] == ["model-19"], "the last edit")
    controller.wait_until_idle()
    generation = namespace.route("chat")["metadata"]["generation"]
    assert namespace.index().routes[0].generation == generation
    assert controller.metric("writes_total", kind="ConfigMap") - before <= 12


def test_a_limit_over_all_pods_is_shared_out_and_holds_in_sum(
    controller: ControllerProcess, namespace: Namespace, tmp_path: Path
) -> None:
    limit = {"name": "all", "per": "Gateway", "requests": 10, "scope": "Gateway"}
    upstream = {"name": "main", "url": "mock://local"}
    namespace.apply(route("chat", auth=OPEN, upstreams=[upstream], limits=[limit]))
    namespace.programmed("chat")
    names = ["web-1", "web-2", "web-3"]
    with ExitStack() as stack:
        gateways = []
        for place, name in enumerate(names):
            address = f"127.0.9.{20 + place}"
            gateways.append(stack.enter_context(gateway_at(namespace, tmp_path / name, address, pod_name=name)))
            make_pods(namespace, pod(name, port=gateways[-1].admin_port))
            runs_at(namespace, name, address)
        said = [{"name": "all", "share": "10 requests/60s, 3 pods, 4 each for the 1 oldest, 3 each for 2"}]
        namespace.wait(lambda: namespace.route("chat")["status"].get("limits") == said, "the shares to be told")
        namespace.wait(lambda: sidecars(namespace, "chat") == "3/3", "all pods to count all pods")
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
        statuses = [gateway.post(body, key=None).status_code for gateway in gateways for _ in range(6)]
        assert sorted(set(statuses)) == [200, 429]
        assert statuses.count(200) == 10
    index = namespace.index()
    assert index.shares
    assert index.shares.first == tuple(names)


def test_two_controllers_at_once_do_not_write_against_each_other(
    controller: ControllerProcess, namespace: Namespace, tmp_path: Path
) -> None:
    limit = {"name": "all", "per": "Gateway", "requests": 10, "scope": "Gateway"}
    namespace.apply(route("chat", auth=OPEN, limits=[limit]))
    namespace.programmed("chat")
    second = controller_process.start(namespace.control_plane)
    try:
        with gateway_at(namespace, tmp_path / "a", "127.0.9.30") as a:
            make_pods(namespace, pod("web-1", port=a.admin_port), pod("silent", port=9))
            runs_at(namespace, "web-1", "127.0.9.30")
            runs_at(namespace, "silent", "127.0.9.31")
            namespace.wait(lambda: sidecars(namespace, "chat") == "1/2", "the pods to be told")
            namespace.apply(route("chat", "other", auth=OPEN, limits=[limit]))
            namespace.programmed("chat")
            namespace.wait(lambda: sidecars(namespace, "chat") == "1/2", "the pods to be told")
            wait_until_nobody_writes(namespace)
    finally:
        assert second.end() == 0
        second.close()


def wait_until_nobody_writes(namespace: Namespace) -> None:
    """Once both have nothing to do: fifty looks in a row at which nothing was written."""
    seen: list[Mapping[str, str]] = []

    def quiet() -> bool:
        seen.append(namespace.versions())
        return len(seen) > 50 and all(one == seen[-1] for one in seen[-50:])

    namespace.wait(quiet, "nobody to write any more")
