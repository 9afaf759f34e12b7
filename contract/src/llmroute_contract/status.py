"""`status` of an LLMRoute: what the controller tells. Owns its form; what is told when is the controller's."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from llmroute_contract.fields import KubernetesTime
from llmroute_contract.part import Part


class Condition(Part):
    """A condition as Kubernetes' own types have it (`metav1.Condition`)."""

    type: Annotated[str, StringConstraints(max_length=316)]
    """Accepted, ResolvedRefs, Programmed or Synced; while there is reason to, PodRestartRequired and
    PodsWithoutGateway."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    observed_generation: int = 0
    """The generation of the spec that this was said of."""
    last_transition_time: KubernetesTime
    """When `status` last changed."""
    reason: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", min_length=1, max_length=1024),
    ]
    """One word for programs."""
    message: Annotated[str, StringConstraints(max_length=32768)]
    """Sentences for people, naming the field."""


class SidecarSample(Part):
    pod: Annotated[str, StringConstraints(max_length=253)]
    """The pod's name."""
    revision: Annotated[str, StringConstraints(max_length=64)] = ""
    """The revision that it serves."""
    reason: Annotated[str, StringConstraints(max_length=1024)] = ""
    """Why it is not the gateway's."""


class Sidecars(Part):
    total: int = 0
    """Pods that serve this gateway."""
    synced: int = 0
    """Those that serve its current revision."""
    summary: Annotated[str, StringConstraints(max_length=32)] = ""
    """Both, as `kubectl get` shows them: `11/12`."""
    samples: Annotated[list[SidecarSample], Field(max_length=5)] | None = None
    """Up to five that do not."""


class LimitShare(Part):
    name: Annotated[str, StringConstraints(max_length=63)]
    """The limit's name."""
    share: Annotated[str, StringConstraints(max_length=256)] = ""
    """How it is shared out among the pods: `6000 tokens/60s, 4 pods, 1500 each`."""


class LLMRouteStatus(Part):
    observed_generation: int = 0
    """The newest generation that the controller has looked at."""
    conditions: Annotated[list[Condition], Field(max_length=16)] | None = None
    """Accepted, ResolvedRefs, Programmed and Synced."""
    revision: Annotated[str, StringConstraints(max_length=64)] = ""
    """Content digest of the gateway's compiled configuration, as the gateways' /status shows it."""
    sidecars: Sidecars | None = None
    """Which pods serve the revision."""
    limits: Annotated[list[LimitShare], Field(max_length=64)] | None = None
    """Limits of scope Gateway that each pod has a share of, where no shared state counts them."""
