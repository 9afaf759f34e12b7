"""Variables of the app's containers, by which SDKs find the gateway and have a key for it.

A variable that a container sets is never touched, and no key is put beside a base URL that is not the gateway's: it
would be sent there. What comes by `envFrom` cannot be seen here, and a variable of the container's own goes before it
(that is Kubernetes' rule): the gateway's then wins, which is told in a warning.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from llmroute_contract.pods import CLIENT_ANNOTATION, GATEWAY_CONTAINER
from llmroute_operator.injector.annotations import CONTAINERS, Wishes, shown
from llmroute_operator.injector.needs import GatewayNeeds
from llmroute_operator.injector.pod import Container, Document, Pod
from llmroute_operator.injector.ports import Ports
from llmroute_operator.injector.settings import InjectorSettings

PLACEHOLDER_KEY = "none-needed"
"""The SDKs refuse to start without a key; a gateway that asks for none lets any pass."""


@dataclass(frozen=True, slots=True)
class SecretEntry:
    """Where the client's key is."""

    secret: str
    entry: str


Key = SecretEntry | Literal["placeholder"] | None


@dataclass(frozen=True, slots=True)
class NoKey:
    """The pod names a client, and there is no telling which Secret has its key."""

    message: str


def client_key(wishes: Wishes, needs: GatewayNeeds) -> Key | NoKey:
    if wishes.client is None:
        return "placeholder" if needs.is_open else None
    if wishes.client.secret is not None:
        return SecretEntry(wishes.client.secret, wishes.client.entry)
    if len(needs.key_secrets) == 1:
        return SecretEntry(next(iter(needs.key_secrets)), wishes.client.entry)
    named = f"annotation {CLIENT_ANNOTATION} is {shown(wishes.client.entry)}"
    if not needs.key_secrets:
        return NoKey(
            f"{named}, but no route of gateway {wishes.gateway!r} in this namespace has client keys (auth.keysFrom): "
            "apply the route first, take the annotation away, or name the Secret too, SECRET/NAME"
        )
    return NoKey(
        f"{named}, but the routes of gateway {wishes.gateway!r} have client keys in several Secrets "
        f"({', '.join(sorted(needs.key_secrets))}): name one of them too, SECRET/NAME"
    )


@dataclass(frozen=True, slots=True)
class _Family:
    """Variables that the SDKs of one provider's API read."""

    base_url: str
    key: str
    path: str


_OPENAI = _Family("OPENAI_BASE_URL", "OPENAI_API_KEY", "/v1")
_ANTHROPIC = _Family("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "")


@dataclass(frozen=True, slots=True)
class AppVariables:
    families: tuple[_Family, ...]
    data_port: int
    key: Key
    containers: tuple[str, ...] | None

    def concerns(self, container: Container) -> bool:
        chosen = self.containers is None or container.name in self.containers
        return chosen and container.name != GATEWAY_CONTAINER

    def url(self, family: _Family) -> str:
        return f"http://127.0.0.1:{self.data_port}{family.path}"


def app_variables(wishes: Wishes, settings: InjectorSettings, ports: Ports, key: Key) -> AppVariables:
    with_anthropic = settings.anthropic if wishes.anthropic is None else wishes.anthropic
    families = (_OPENAI, _ANTHROPIC) if with_anthropic else (_OPENAI,)
    return AppVariables(families, ports.data, key, wishes.containers)


def unknown_containers(pod: Pod, wishes: Wishes) -> list[str]:
    names = {container.name for container in pod.every_container} - {GATEWAY_CONTAINER}
    return [
        f"annotation {CONTAINERS} names {name!r}, which is no container of this pod: {', '.join(sorted(names))}"
        for name in wishes.containers or ()
        if name not in names
    ]


def variables_for(container: Container, wanted: AppVariables) -> list[Document]:
    """Those that `container` lacks, as its `env` has them."""
    if not wanted.concerns(container):
        return []
    there = {variable.name: variable.value for variable in container.env or ()}
    missing: list[Document] = []
    for family in wanted.families:
        url = wanted.url(family)
        if family.base_url not in there:
            missing.append({"name": family.base_url, "value": url})
        if wanted.key is not None and family.key not in there and _is_ours(there.get(family.base_url, url), url):
            missing.append({"name": family.key, **_source(wanted.key)})
    return missing


def _is_ours(value: str | None, url: str) -> bool:
    return value is not None and value.rstrip("/") == url.rstrip("/")


def _source(key: SecretEntry | Literal["placeholder"]) -> Document:
    if isinstance(key, SecretEntry):
        return {"valueFrom": {"secretKeyRef": {"name": key.secret, "key": key.entry}}}
    return {"value": PLACEHOLDER_KEY}


def warnings_of(containers: Iterable[Container], wanted: AppVariables) -> list[str]:
    """What a person may not expect of variables."""
    return [text for container in containers if wanted.concerns(container) for text in _told_of(container, wanted)]


def _told_of(container: Container, wanted: AppVariables) -> Iterator[str]:
    there = {variable.name: variable.value for variable in container.env or ()}
    for family in wanted.families:
        if family.base_url in there and not _is_ours(there[family.base_url], wanted.url(family)):
            yield f"container {container.name!r} sets {family.base_url} itself: its calls do not go to the gateway"
        elif container.env_from and family.base_url not in there:
            yield (
                f"container {container.name!r} has envFrom: should that set {family.base_url}, the gateway's goes "
                f"before it (annotation {CONTAINERS} says which containers get variables)"
            )
