"""What was stored under an earlier CRD (first_version) is the same after today's has taken its place, and valid.

On the real API server, under names of their own: the control plane's LLMRoutes are other tests' too, and kubectl would
not know which of two kinds `llmr` is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmroute_contract.llmroute import LLMRouteSpec, parse_spec
from tests.cluster.control_plane import CRD, ControlPlane
from tests.waiting import wait_until
from tools.chart import REPOSITORY

EARLIER = REPOSITORY / "tests" / "chart" / "first_version"
EARLIER_CRD = EARLIER / "files" / "crd" / "llmroutes.yaml"
ROUTES = (EARLIER / "route.yaml", EARLIER / "quickstart.yaml")
GROUP = "earlier.llmroute.dev"
KIND = f"earlierroutes.{GROUP}"


def crd_elsewhere(path: Path) -> str:
    document = yaml.safe_load(path.read_text())
    document["metadata"]["name"] = KIND
    document["spec"]["group"] = GROUP
    document["spec"]["names"] = {
        "kind": "EarlierRoute",
        "listKind": "EarlierRouteList",
        "plural": "earlierroutes",
        "singular": "earlierroute",
    }
    return yaml.safe_dump(document)


@pytest.fixture
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    yield control_plane
    control_plane.kubectl("delete", "crd", KIND, "--ignore-not-found")


@pytest.mark.cluster
def test_what_was_stored_under_an_earlier_crd_stays_as_it_is_and_valid(plane: ControlPlane) -> None:
    namespace = plane.new_namespace()
    written = [
        one | {"apiVersion": f"{GROUP}/v1alpha1", "kind": "EarlierRoute"}
        for path in ROUTES
        for one in yaml.safe_load_all(path.read_text())
        if one["kind"] == "LLMRoute"
    ]
    text = yaml.safe_dump_all(written)

    def applies(text: str, *arguments: str) -> bool:
        applying = ["apply", "-n", namespace, "--server-side", "--validate=strict", *arguments, "-f", "-"]
        return plane.kubectl(*applying, input=text, check=False).returncode == 0

    def stored() -> dict[str, Any]:
        return {one["metadata"]["name"]: one for one in plane.get("-n", namespace, KIND)["items"]}

    plane.kubectl("apply", "--server-side", "-f", "-", input=crd_elsewhere(EARLIER_CRD))
    wait_until(lambda: applies(text), "routes to be stored under the earlier CRD")
    before = stored()
    assert len(before) == len(written) == 2
    new = yaml.safe_dump(with_a_new_field(written[0]))
    assert not applies(new, "--dry-run=server"), "the earlier CRD is no other than today's"

    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=crd_elsewhere(CRD))
    wait_until(lambda: applies(new, "--dry-run=server"), "the API server to know today's CRD")
    after = stored()
    for name, route in before.items():
        for field in ("uid", "generation", "creationTimestamp"):
            assert after[name]["metadata"][field] == route["metadata"][field]
        assert holds(after[name]["spec"], route["spec"]), "what was stored is shown, beside new fields' defaults"
        assert meant(after[name]["spec"]) == meant(route["spec"])
    # Written again as it was, and changed by somebody who knows of nothing new.
    assert applies(text)
    for name in before:
        plane.kubectl("-n", namespace, "label", KIND, name, "touched=true")


def test_a_route_of_the_fixture_has_every_field_of_the_earlier_crd() -> None:
    [version] = yaml.safe_load(EARLIER_CRD.read_text())["spec"]["versions"]
    known = set(fields(version["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec"))
    assert set(values(yaml.safe_load(ROUTES[0].read_text())["spec"], "spec")) >= known


def with_a_new_field(route: dict[str, Any]) -> dict[str, Any]:
    return {**route, "spec": {**route["spec"], "sharedState": {"whenUnavailable": "FailClosed"}}}


def meant(spec: dict[str, Any]) -> LLMRouteSpec:
    parsed = parse_spec(spec)
    assert isinstance(parsed, LLMRouteSpec), parsed
    return parsed


def holds(whole: Any, part: Any) -> bool:
    """Whether all of `part` is in `whole`, which may have fields beside."""
    match part:
        case dict():
            return all(key in whole and holds(whole[key], value) for key, value in part.items())
        case list():
            return len(whole) == len(part) and all(map(holds, whole, part))
        case _:
            return bool(whole == part)


def fields(schema: dict[str, Any], path: str) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from fields(inner, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], path)


def values(document: Any, path: str) -> Iterator[str]:
    match document:
        case dict():
            for name, inner in document.items():
                yield f"{path}.{name}"
                yield from values(inner, f"{path}.{name}")
        case list():
            for inner in document:
                yield from values(inner, path)
