"""What each kind of pod is given, and what it is told where it is given nothing."""

import pytest

from llmroute_operator.injector.inject import Allowed, Denied
from llmroute_operator.injector.needs import GatewayNeeds
from llmroute_operator.injector.settings import BadSettings, parse_settings
from tests.operator.injector.pod_table import GUARANTEED, TABLE, URL, Row, annotated, with_app
from tests.operator.injector.pods import (
    IMAGE,
    KEYS,
    apply,
    container,
    decide,
    denied,
    gateway,
    injected,
    pod,
    variables,
)


def test_the_table_is_long() -> None:
    assert len(TABLE) >= 60


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_a_pod_of_the_table(row: Row) -> None:
    decision = decide(row.document)
    match row.expected:
        case "injected":
            assert isinstance(decision, Allowed), decision
            assert gateway(apply(row.document, decision.operations))["restartPolicy"] == "Always"
        case "unchanged":
            assert isinstance(decision, Allowed)
            assert not decision.operations
        case refusal:
            assert isinstance(decision, Denied)
            assert refusal in "; ".join(decision.messages)


def test_the_smallest_pod_gets_exactly_this() -> None:
    decision = decide(pod())
    assert isinstance(decision, Allowed)
    assert [(one.op, one.path) for one in decision.operations] == [
        ("add", "/metadata/labels/llmroute.dev~1gateway"),
        ("add", "/spec/containers/0/env"),
        ("add", "/spec/initContainers"),
        ("add", "/spec/volumes"),
    ]
    assert decision.warnings == []


def test_the_app_is_told_where_the_gateway_is_and_given_a_placeholder() -> None:
    assert variables(injected(pod())) == {"OPENAI_BASE_URL": URL, "OPENAI_API_KEY": "none-needed"}


def test_later_init_containers_are_told_too() -> None:
    made = injected(pod(initContainers=[container("migrate")]))
    assert [one["name"] for one in made["spec"]["initContainers"]] == ["llmroute-gateway", "migrate"]
    assert variables(made, "migrate")["OPENAI_BASE_URL"] == URL


def test_a_client_is_given_its_key_by_reference() -> None:
    made = injected(annotated(client="web"), KEYS)
    assert variables(made)["OPENAI_API_KEY"] == {"secretKeyRef": {"name": "clients", "key": "web"}}


def test_without_a_client_there_is_no_key_where_all_routes_want_one() -> None:
    decision = decide(pod(), KEYS)
    assert isinstance(decision, Allowed)
    assert "OPENAI_API_KEY" not in variables(injected(pod(), KEYS))
    assert "the app has to bring a key" in decision.warnings[0]


def test_a_client_in_several_secrets_has_to_be_told_apart() -> None:
    needs = GatewayNeeds(frozenset({"a", "b"}), frozenset({"a", "b"}), is_open=False)
    assert "several Secrets (a, b)" in denied(annotated(client="web"), needs)
    assert variables(injected(annotated(client="b/web"), needs))["OPENAI_API_KEY"] == {
        "secretKeyRef": {"name": "b", "key": "web"}
    }


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", ""])
def test_a_base_url_that_is_set_stays_and_no_key_goes_there(url: str) -> None:
    document = pod(
        container(env=[{"name": "OPENAI_BASE_URL", "value": url}]), annotations={"llmroute.dev/client": "web"}
    )
    assert variables(injected(document, KEYS)) == {"OPENAI_BASE_URL": url}


def test_a_key_that_is_set_stays() -> None:
    made = injected(with_app(env=[{"name": "OPENAI_API_KEY", "value": "own"}]))
    assert variables(made) == {"OPENAI_API_KEY": "own", "OPENAI_BASE_URL": URL}


def test_env_from_is_told_of() -> None:
    decision = decide(TABLE["envFrom"].document)
    assert isinstance(decision, Allowed)
    assert "has envFrom" in decision.warnings[0]


def test_a_mistyped_annotation_is_told_of() -> None:
    decision = decide(TABLE["a mistyped annotation"].document)
    assert isinstance(decision, Allowed)
    assert "llmroute.dev/log-levle is not known" in decision.warnings[0]


def test_variables_go_only_where_they_are_wanted() -> None:
    document = pod(container(), container("worker"), annotations={"llmroute.dev/containers": "worker"})
    made = injected(document)
    assert variables(made) == {}
    assert variables(made, "worker")["OPENAI_BASE_URL"] == URL


def test_anthropics_variables_have_no_v1() -> None:
    assert variables(injected(annotated(anthropic="true")))["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8790"


def test_secrets_are_mounted_in_the_gateway_alone() -> None:
    made = injected(pod(), KEYS)
    mounts = {mount["mountPath"]: mount["readOnly"] for mount in gateway(made)["volumeMounts"]}
    assert mounts == {
        "/var/run/llmroute/config": True,
        "/var/run/secrets/kubernetes.io/serviceaccount": True,
        "/var/run/llmroute/secrets/clients": True,
        "/var/run/llmroute/secrets/openai": True,
    }
    assert all(volume["secret"]["optional"] for volume in made["spec"]["volumes"] if "secret" in volume)
    assert "volumeMounts" not in made["spec"]["containers"][0]


def test_a_secret_whose_name_is_no_volumes_gets_a_digest() -> None:
    long = "a." * 100 + "a"
    made = injected(pod(), GatewayNeeds(frozenset({long})))
    (volume,) = [one for one in made["spec"]["volumes"] if "secret" in one]
    assert len(volume["name"]) <= 63
    assert volume["secret"]["secretName"] == long


def test_annotations_reach_the_gateway() -> None:
    arguments = gateway(injected(annotated(log_level="debug", data_port="9000", admin_port="9001", gateway="batch")))[
        "args"
    ]
    assert {"--log-level=debug", "--port=9000", "--admin-port=9001"} <= set(arguments)


@pytest.mark.parametrize(("seconds", "grace"), [(None, "25"), (10, "8"), (1, "0"), (3600, "25")])
def test_the_grace_fits_into_the_pods_time_to_end(seconds: int | None, grace: str) -> None:
    document = pod() if seconds is None else pod(terminationGracePeriodSeconds=seconds)
    assert f"--grace={grace}" in gateway(injected(document))["args"]


def test_a_guaranteed_pods_gateway_requests_its_limits() -> None:
    assert gateway(injected(with_app(resources=GUARANTEED)))["resources"] == {
        "limits": {"cpu": "50m", "memory": "256Mi"},
        "requests": {"cpu": "50m", "memory": "256Mi"},
    }


def test_a_burstable_pods_gateway_has_the_settings_resources() -> None:
    assert gateway(injected(with_app(resources={"requests": {"cpu": "1"}})))["resources"] == {
        "limits": {"memory": "256Mi"},
        "requests": {"cpu": "50m", "memory": "48Mi"},
    }


def test_post_start_holds_the_app_back_where_the_settings_say_so() -> None:
    settings = parse_settings(f"{{image: {IMAGE}, holdApplication: PostStart}}")
    made = gateway(injected(pod(), settings=settings))
    assert "startupProbe" not in made
    assert made["lifecycle"]["postStart"]["exec"]["command"][:2] == ["llmroute", "ready"]
    assert "lifecycle" not in gateway(injected(injected(pod(), settings=settings)))


# --- a gateway that is there already


def test_a_flattened_gateway_is_healed() -> None:
    flat = injected(pod(), KEYS)
    for field in ("restartPolicy", "startupProbe"):
        del flat["spec"]["initContainers"][0][field]
    assert injected(flat, KEYS) == injected(pod(), KEYS)


def test_what_another_webhook_added_to_the_gateway_stays() -> None:
    other = injected(pod())
    gateway(other)["env"].append({"name": "HTTPS_PROXY", "value": "http://proxy"})
    gateway(other)["volumeMounts"].append({"name": "x", "mountPath": "/x"})
    assert injected(other) == other


def test_what_another_webhook_changed_is_put_back() -> None:
    other = injected(pod())
    gateway(other)["image"] = "another"
    gateway(other)["securityContext"]["readOnlyRootFilesystem"] = False
    assert injected(other) == injected(pod())


def test_a_gateway_moved_behind_an_init_container_comes_first_again() -> None:
    other = injected(pod(initContainers=[container("migrate")]))
    other["spec"]["initContainers"].reverse()
    assert [one["name"] for one in injected(other)["spec"]["initContainers"]] == ["llmroute-gateway", "migrate"]


def test_a_sidecar_that_another_injector_put_first_keeps_its_place() -> None:
    other = injected(pod())
    other["spec"]["initContainers"].insert(0, container("istio-proxy", restartPolicy="Always", env=[
        {"name": "OPENAI_BASE_URL", "value": URL}, {"name": "OPENAI_API_KEY", "value": "none-needed"}]))  # fmt: skip
    assert injected(other) == other


def test_a_copy_of_a_pod_loses_secrets_that_are_needed_no_longer() -> None:
    made = injected(injected(pod(), KEYS))
    assert gateway(made) == gateway(injected(pod()))
    assert made["spec"]["volumes"] == injected(pod())["spec"]["volumes"]


# --- settings


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("image: app:1", "image: must be pinned by its digest"),
        (f"{{image: {IMAGE}, adminPort: 8790}}", "adminPort: must not be the data port"),
        (f"{{image: {IMAGE}, colour: red}}", "colour: is not a field"),
        (f"{{image: {IMAGE}, resources: {{requests: {{cpu: many}}}}}}", "resources.requests.cpu"),
        ("image: [", "is not YAML"),
        ("", "must be a map"),
    ],
)
def test_bad_settings_are_refused_by_name(text: str, what: str) -> None:
    with pytest.raises(BadSettings, match=what.replace("[", r"\[")):
        parse_settings(text)
