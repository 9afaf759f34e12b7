"""What a platform team sets for every gateway that is injected: a YAML file, mounted from a ConfigMap.

Owns the fields, their bounds and defaults. When the file is read is `watched_file.py`'s; what a pod's author may ask
for beside it is `annotations.py`'s.
"""

import re
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from llmroute_contract.fields import DurationBetween, SecretName
from llmroute_contract.part import Part
from llmroute_contract.pods import ADMIN_PORT, DATA_PORT
from llmroute_contract.problem import WrongField, problems_of
from llmroute_operator.injector.quantity import parse_quantity

PORT_LEAST, PORT_MOST = 1024, 65535
"""Below it a process without rights may not listen everywhere."""
LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")
_PINNED = re.compile(r"\S+@sha256:[0-9a-f]{64}")


def _quantity(text: str) -> str:
    parse_quantity(text)
    return text


QuantityText = Annotated[str, AfterValidator(_quantity)]
GatewayPort = Annotated[int, Field(ge=PORT_LEAST, le=PORT_MOST)]


class Amounts(Part):
    cpu: QuantityText | None = None
    memory: QuantityText | None = None


class GatewayResources(Part):
    requests: Amounts = Amounts(cpu="50m", memory="48Mi")
    limits: Amounts = Amounts(memory="256Mi")
    """No limit on CPU by default: a throttled gateway is slow for everybody behind it."""


class InjectorSettings(Part):
    image: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\s]+$")]
    """Of the gateway, pinned by its digest: `NAME@sha256:…`."""
    allow_unpinned_image: bool = False
    """For a cluster on a laptop: takes an image by its tag."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    resources: GatewayResources = GatewayResources()
    log_level: LogLevel = "info"
    data_port: GatewayPort = DATA_PORT
    admin_port: GatewayPort = ADMIN_PORT
    grace: Annotated[float, DurationBetween("0s", "1h")] = 25.0
    """For calls under way when the pod ends; never longer than the pod has."""
    hold_application: Literal["StartupProbe", "PostStart"] = "StartupProbe"
    """How the app is held back until its gateway is ready. `PostStart` is for kubelets whose startup probes of sidecars
    do not do it."""
    start_within: Annotated[float, DurationBetween("10s", "24h")] = 600.0
    """How long a gateway may take to be ready (its ConfigMap may come late) before it is started anew."""
    run_as_user: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = 65532
    """null: the image's own, or the one that the cluster assigns (OpenShift)."""
    shared_state_secret: SecretName | None = None
    """A Secret of each pod's namespace with the way to the shared store of limits; mounted where it is there."""
    otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=1024)] | None = None
    """Traces go there."""
    anthropic: bool = False
    """Whether app containers are given ANTHROPIC_BASE_URL too."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.allow_unpinned_image and not _PINNED.fullmatch(self.image):
            raise WrongField("must be pinned by its digest, NAME@sha256:…, or allowUnpinnedImage be true", "image")
        if self.data_port == self.admin_port:
            raise WrongField("must not be the data port", "adminPort")
        for name in ("cpu", "memory"):
            request, limit = getattr(self.resources.requests, name), getattr(self.resources.limits, name)
            if request is not None and limit is not None and parse_quantity(request) > parse_quantity(limit):
                raise WrongField("must not be more than the limit", "resources", "requests", name)
        return self


class BadSettings(ValueError):
    """The text says which fields are wrong, and how."""


def parse_settings(text: str) -> InjectorSettings:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise BadSettings(f"is not YAML (line {mark.line + 1})" if mark is not None else "is not YAML") from None
    try:
        return InjectorSettings.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        raise BadSettings("; ".join(map(str, problems_of(error, InjectorSettings)))) from None
