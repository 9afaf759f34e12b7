"""What the injector reads of a pod, typed. Fields that are not named here are never looked at, and stay as they are."""

from typing import Any

import msgspec

Document = dict[str, Any]
"""A pod, or a part of one, as the API server has it."""
Quantity = str | int | float
"""Kubernetes writes texts; people's numbers reach a webhook as such."""


class Read(msgspec.Struct, frozen=True, rename="camel"):
    """Base: camelCase outside, unknown fields let through."""


class Resources(Read, frozen=True):
    requests: dict[str, Quantity] | None = None
    limits: dict[str, Quantity] | None = None


class Variable(Read, frozen=True):
    name: str
    value: str | None = None


class Port(Read, frozen=True):
    container_port: int
    protocol: str | None = None
    name: str | None = None


class Container(Read, frozen=True):
    name: str
    env: list[Variable] | None = None
    env_from: list[Any] | None = None
    ports: list[Port] | None = None
    resources: Resources | None = None
    restart_policy: str | None = None


class Volume(Read, frozen=True):
    name: str


class OperatingSystem(Read, frozen=True):
    name: str


class Spec(Read, frozen=True):
    containers: list[Container]
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    resources: Resources | None = None
    """Of the pod as a whole (Kubernetes 1.34)."""
    host_network: bool | None = None
    node_selector: dict[str, str] | None = None
    os: OperatingSystem | None = None
    termination_grace_period_seconds: int | None = None


class Metadata(Read, frozen=True):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Pod(Read, frozen=True):
    spec: Spec
    metadata: Metadata = Metadata()

    @property
    def labels(self) -> dict[str, str]:
        return self.metadata.labels or {}

    @property
    def annotations(self) -> dict[str, str]:
        return self.metadata.annotations or {}

    @property
    def every_container(self) -> list[Container]:
        return [*(self.spec.init_containers or ()), *self.spec.containers]


class NotAPod(ValueError):
    """The document is none; the text says which field is wrong."""


def read_pod(document: object) -> Pod:
    try:
        return msgspec.convert(document, Pod)
    except msgspec.ValidationError as error:
        raise NotAPod(str(error)) from None
