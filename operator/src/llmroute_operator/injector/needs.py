"""What a gateway's routes need of the pods that it is in: Secrets by name, and how its callers are told apart."""

from collections.abc import Iterable
from dataclasses import dataclass

from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_contract.secrets import secrets_needed


@dataclass(frozen=True, slots=True)
class GatewayNeeds:
    secrets: frozenset[str] = frozenset()
    key_secrets: frozenset[str] = frozenset()
    """Those of `auth.keysFrom`."""
    is_open: bool = True
    """Whether a call without a key may be served: some route has `auth.mode: None`, or there is none yet."""


def needs_of(specs: Iterable[LLMRouteSpec]) -> GatewayNeeds:
    specs = list(specs)
    return GatewayNeeds(
        secrets=frozenset[str]().union(*map(secrets_needed, specs)),
        key_secrets=frozenset(spec.auth.keys_from.secret_ref.name for spec in specs if spec.auth.keys_from is not None),
        is_open=not specs or any(spec.auth.mode == "None" for spec in specs),
    )
