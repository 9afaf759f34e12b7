"""Which Secrets a route needs, and which a pod's gateway has."""

from typing import Any

from llmroute_contract.secrets import secret_directory, secrets_mounted, secrets_needed
from tests.contract.routes import full_route, model, spec_document, spec_of


def test_keys_credentials_authorities_and_client_certificates_are_needed() -> None:
    needed = secrets_needed(spec_of(full_route()["spec"]))
    assert needed == {"chat-clients", "openai", "corp-ca", "openai-mtls"}


def test_a_route_without_a_reference_needs_none() -> None:
    assert secrets_needed(spec_of(spec_document([model("m")]))) == frozenset()


def pod(mounts: list[dict[str, Any]], volumes: list[dict[str, Any]], name: str = "llmroute-gateway") -> dict[str, Any]:
    return {"spec": {"initContainers": [{"name": name, "volumeMounts": mounts}], "volumes": volumes}}


VOLUME = {"name": "v1", "secret": {"secretName": "openai", "optional": True}}
MOUNT = {"name": "v1", "mountPath": secret_directory("openai")}


def test_a_secret_that_the_gateway_mounts_is_found() -> None:
    assert secrets_mounted(pod([MOUNT], [VOLUME, {"name": "other", "emptyDir": {}}])) == {"openai"}


def test_what_another_container_mounts_or_stands_elsewhere_is_not() -> None:
    assert secrets_mounted(pod([MOUNT], [VOLUME], name="app")) == frozenset()
    assert secrets_mounted(pod([{**MOUNT, "mountPath": "/elsewhere"}], [VOLUME])) == frozenset()
    assert secrets_mounted(pod([], [VOLUME])) == frozenset()


def test_a_pod_that_is_hardly_one_has_none() -> None:
    for broken in ({}, {"spec": None}, {"spec": {"initContainers": None, "volumes": [None, "x"]}}):
        assert secrets_mounted(broken) == frozenset()
