"""What holds for every pod that is let in: those of the table, and any that Hypothesis thinks of."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_operator.injector.inject import Allowed
from llmroute_operator.injector.needs import GatewayNeeds
from llmroute_operator.injector.patch import difference
from llmroute_operator.injector.quantity import amount
from tests.operator.injector.pod_table import INJECTED, Row
from tests.operator.injector.pods import KEYS, OPEN, Document, apply, container, decide, gateway, injected, pod

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, 1.0])
    | st.sampled_from(["", "a", "a/b", "~"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "a/b", "~1", ""]), inner),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON, JSON)
def test_a_difference_leads_from_one_document_to_the_other(before: object, after: object) -> None:
    made = apply(before, difference(before, after))
    assert repr(_sorted(made)) == repr(_sorted(after))  # repr tells 1 from True
    assert not difference(after, after)


def _sorted(document: object) -> object:
    if isinstance(document, dict):
        return {key: _sorted(document[key]) for key in sorted(document)}
    return [_sorted(one) for one in document] if isinstance(document, list) else document


def qos(document: Document) -> str:
    """Kubernetes' class of a pod (component-helpers, ComputePodQOS)."""
    spec = document["spec"]
    holders = [spec] if spec.get("resources") else [*spec["containers"], *spec.get("initContainers", [])]
    amounts = [one.get("resources") or {} for one in holders]
    if not any(amount(value) for one in amounts for kind in ("limits", "requests") for name, value in
               (one.get(kind) or {}).items() if name in ("cpu", "memory")):  # fmt: skip
        return "BestEffort"
    for one in amounts:
        limits = one.get("limits") or {}
        requests = limits | (one.get("requests") or {})
        for name in ("cpu", "memory"):
            if not amount(limits.get(name)) or amount(requests.get(name)) != amount(limits.get(name)):
                return "Burstable"
    return "Guaranteed"


def check(document: Document, needs: GatewayNeeds) -> Document:
    made = injected(document, needs)
    again = decide(made, needs)
    assert isinstance(again, Allowed)
    assert not again.operations, "its own output is patched again"
    container = gateway(made)
    assert made["spec"]["initContainers"][0] == container
    context = container["securityContext"]
    assert context["runAsNonRoot"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["readOnlyRootFilesystem"]
    assert {one["name"] for one in container["volumeMounts"]} <= {one["name"] for one in made["spec"]["volumes"]}
    without = [one for one in made["spec"]["initContainers"] if one["name"] != "llmroute-gateway"]
    assert [_but_env(one) for one in without] == [_but_env(one) for one in document["spec"].get("initContainers", [])]
    assert [_but_env(one) for one in made["spec"]["containers"]] == list(map(_but_env, document["spec"]["containers"]))
    return made


def _but_env(document: Document) -> Document:
    return {key: value for key, value in document.items() if key != "env"}


@pytest.mark.parametrize("row", INJECTED.values(), ids=INJECTED.keys())
def test_a_pod_of_the_table_keeps_its_class_and_is_patched_once(row: Row) -> None:
    made = check(row.document, OPEN)
    assert qos(made) == row.qos
    check(row.document, KEYS)


AMOUNTS = st.dictionaries(st.sampled_from(["cpu", "memory"]), st.sampled_from(["0", "1", "1000m", "1Gi", "250m"]))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "env": st.lists(
        st.builds(
            lambda name, value: {"name": name, "value": value},
            st.sampled_from(["A", "OPENAI_BASE_URL", "OPENAI_API_KEY"]),
            st.sampled_from(["", "x", "http://127.0.0.1:8790/v1"]),
        ),
        max_size=3,
        unique_by=lambda variable: variable["name"],
    ),
    "resources": st.fixed_dictionaries({}, optional={"limits": AMOUNTS, "requests": AMOUNTS}),
    "ports": st.lists(st.sampled_from([{"containerPort": 80}, {"containerPort": 443, "protocol": "UDP"}]), max_size=2),
    "unknown": st.just({"kept": [1, None]}),
}


def containers(*names: str) -> st.SearchStrategy[list[Document]]:
    made = st.fixed_dictionaries({}, optional=FIELDS)
    return st.lists(made, min_size=1, max_size=len(names)).map(
        lambda some: [container(name, **fields) for name, fields in zip(names, some, strict=False)]
    )


@settings(deadline=None)
@given(
    containers("app", "worker"),
    st.none() | containers("migrate", "seed"),
    st.fixed_dictionaries(
        {},
        optional={
            "volumes": st.just([{"name": "v", "emptyDir": {}}]),
            "terminationGracePeriodSeconds": st.integers(0, 99),
        },
    ),
    st.frozensets(st.sampled_from(["a", "b.c", "d" * 200])),
)
def test_any_pod_keeps_its_class_and_is_patched_once(
    apps: list[Document], init: list[Document] | None, spec: Document, secrets: frozenset[str]
) -> None:
    document = pod(*apps)
    document["spec"] |= spec | ({"initContainers": init} if init is not None else {})
    assert qos(check(document, GatewayNeeds(secrets))) == qos(document)
