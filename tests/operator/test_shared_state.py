"""The shared state that the controller is given, in the ConfigMaps that it writes."""

import subprocess

import pytest

from llmroute_contract.compiled import CompiledSharedState
from tests.cluster.control_plane import ControlPlane
from tests.operator.controller_process import COMMAND, running_controller
from tests.operator.namespace import Namespace, route

LIMIT = {"name": "quota", "per": "Gateway", "requests": 5, "scope": "Gateway"}


@pytest.mark.cluster
def test_the_shared_state_goes_into_gateway_json_and_leaves_it_again(
    control_plane: ControlPlane, namespace: Namespace
) -> None:
    url = "rediss://state.infra:6380/0?timeout=250ms"
    own = ("--namespace", namespace.name)
    namespace.apply(route("chat", "gpt", limits=[LIMIT]))
    with running_controller(control_plane, *own, "--shared-state-url", url, "--shared-state-secret", "state"):
        revision = namespace.programmed("chat")
        index = namespace.index()
        assert index.shared_state == CompiledSharedState(url, "state")
        assert index.revision == revision
        assert namespace.compiled("chat").limits[0].scope == "Gateway"
        assert namespace.condition("chat", "Accepted", "True") == "Generation 1 is accepted."
    with running_controller(control_plane, *own) as controller:
        controller.wait_until_idle()
        assert namespace.programmed("chat") != revision
        assert not namespace.index().shared_state


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shared-state-url", "redis://user:canary@state"], "must not hold a user or password"),
        (["--shared-state-url", "state:6379"], "must be redis://HOST"),
        (["--shared-state-url", "redis://state", "--shared-state-secret", "No Name"], "is not a Secret's name"),
        (["--shared-state-secret", "state"], "--shared-state-secret needs --shared-state-url"),
    ],
)
def test_what_is_no_shared_state_is_told_at_once(arguments: list[str], said: str) -> None:
    done = subprocess.run([COMMAND, "controller", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "canary" not in done.stderr
