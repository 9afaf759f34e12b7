"""`GATEWAY_*` variables: the seed's way to the same snapshot."""

import pytest

from llmroute_contract import compiled as c
from llmroute_sidecar.config.environment import EnvironmentSource, misspelt
from llmroute_sidecar.config.reload import Reloader
from llmroute_sidecar.config.source import SourceError
from llmroute_sidecar.snapshot import Snapshot


def snapshot_of(**variables: str) -> Snapshot:
    reload = Reloader(EnvironmentSource({f"GATEWAY_{name}": value for name, value in variables.items()})).tick()
    assert reload is not None
    assert reload.snapshot is not None, reload.status
    assert reload.status.missing_secrets == ()
    return reload.snapshot


def upstreams_of(snapshot: Snapshot, model: str) -> list[str]:
    return [snapshot.upstreams[candidate.upstream].name for candidate in snapshot.models.plan(model).candidates]


def test_without_any_variable_the_seeds_defaults_hold() -> None:
    snapshot = snapshot_of()
    assert len(snapshot.keys.find(b"dev-key")) == 1
    assert upstreams_of(snapshot, "mock") == ["mock"]
    assert upstreams_of(snapshot, "other") == []
    (upstream,) = snapshot.upstreams.values()
    assert (upstream.breaker_max_failures, upstream.breaker_reset) == (5, 30.0)
    assert (upstream.first_token_timeout, upstream.idle_timeout) == (10.0, 10.0)
    (limit,) = snapshot.routes["environment"].limits
    assert (limit.per, limit.requests, limit.window) == ("Client", 60, 60.0)


def test_each_key_is_a_client_of_its_own() -> None:
    keys = snapshot_of(API_KEYS=" one, two ,,three").keys
    names = {keys.find(key)[0].name for key in (b"one", b"two", b"three")}
    assert len(names) == 3
    assert keys.find(b"dev-key") == ()


def test_model_names_that_are_no_dns_labels_keep_their_name_as_the_model() -> None:
    snapshot = snapshot_of(UPSTREAMS="llama3.1=http://localhost:8001;llama3_1=mock://local;GPT-4o=https://x/v1")
    assert [name for name in ("llama3.1", "llama3_1", "GPT-4o") if upstreams_of(snapshot, name)] == [
        "llama3.1",
        "llama3_1",
        "GPT-4o",
    ]
    assert len({upstream.name for upstream in snapshot.upstreams.values()}) == 3
    assert snapshot.models.plan("llama3.1").candidates[0].upstream_model == "llama3.1"


def test_fallbacks_and_the_default_upstream_are_taken() -> None:
    snapshot = snapshot_of(
        UPSTREAMS="llama=mock://fail;gpt-4o-mini=mock://a;mock=mock://b",
        FALLBACKS="llama=gpt-4o-mini,mock",
        DEFAULT_UPSTREAM="mock",
    )
    assert upstreams_of(snapshot, "llama") == ["llama", "gpt-4o-mini", "mock"]
    assert upstreams_of(snapshot, "whatever") == ["mock"]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("API_KEYS", "", "at least one key"),
        ("API_KEYS", " , ", "at least one key"),
        ("RATE_LIMIT_PER_MINUTE", "many", "must be a number"),
        ("RATE_LIMIT_PER_MINUTE", "0", "at least 1"),
        ("RATE_LIMIT_PER_MINUTE", "1.5", "whole number"),
        ("RATE_LIMIT_PER_MINUTE", "nan", "at least 1"),
        ("CIRCUIT_BREAKER_MAX_FAILURES", "0", "at least 1"),
        ("CIRCUIT_BREAKER_MAX_FAILURES", "1001", ""),
        ("CIRCUIT_BREAKER_RESET_SECONDS", "-1", "at least"),
        ("REQUEST_TIMEOUT_SECONDS", "ten", "must be a number"),
        ("UPSTREAMS", "", "at least one upstream"),
        ("UPSTREAMS", "llama", "name=url"),
        ("UPSTREAMS", "a=mock://x;a=mock://y", "'a' twice"),
        ("UPSTREAMS", "a=ftp://x", "must begin with"),
        ("UPSTREAMS", "a=https://user:hush@x", "must not hold a user or password"),
        ("UPSTREAMS", "a b=mock://x", "must match"),
        ("UPSTREAMS", "a=mock://x,b=mock://y", "entries are separated by ;"),
        ("DEFAULT_UPSTREAM", "nobody", "no upstream is named 'nobody'"),
        ("FALLBACKS", "mock", "model=other"),
        ("FALLBACKS", "mock=nobody", "'nobody'"),
        ("FALLBACKS", "mock=mock", "leads back"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(variable: str, value: str, told: str) -> None:
    with pytest.raises(SourceError) as refused:
        EnvironmentSource({"GATEWAY_API_KEYS": "hush", f"GATEWAY_{variable}": value})
    text = str(refused.value)
    assert f"GATEWAY_{variable}" in text
    assert told in text
    assert "hush" not in text


def test_a_variable_that_is_nearly_one_is_told_and_those_of_a_service_named_gateway_are_not() -> None:
    environment = {"GATEWAY_UPSTREAM": "a=mock://x", "GATEWAY_PORT": "tcp://10.0.0.1:80", "GATEWAY_SERVICE_HOST": "x"}
    assert list(misspelt(environment)) == ["GATEWAY_UPSTREAM is not read; did you mean GATEWAY_UPSTREAMS?"]
    assert list(misspelt({"GATEWAY_UPSTREAMS": "a=mock://x", "GATEWAY_API_KEYS": "k"})) == []


def test_the_same_environment_is_the_same_revision() -> None:
    def revision() -> str:
        return c.decode(EnvironmentSource({}).read().files[c.GATEWAY_FILE], c.CompiledGateway).revision

    assert revision() == revision()
