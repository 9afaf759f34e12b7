"""What is told of the configuration: in `/status`, in metrics and in the log. Values only; `reload.py` makes them."""

from dataclasses import dataclass
from typing import Literal

from llmroute_contract import compiled as c

State = Literal["waiting", "current", "partial", "failed"]
"""`waiting`: there is no configuration yet. `current`: what is wanted is served. `partial`: it is, but for some routes.
`failed`: what is wanted cannot be used; the last good configuration, if there ever was one, is served on."""

Result = Literal["applied", "unchanged", "partial", "failed"]


@dataclass(frozen=True, slots=True)
class RouteStatus:
    name: str
    accepted: bool
    """Whether its newest version is served as it is."""
    generation: int | None
    """The generation served; None where none is."""
    wanted_generation: int | None
    """The one that the configuration lists; None where it lists none."""
    reason: str | None
    since: float
    """Unix time since when this is so."""


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    state: State
    revision: str | None
    """Of what is really served. It differs from `wanted_revision` while a route is kept at its last good version."""
    wanted_revision: str | None
    """Of the newest configuration that could be read."""
    since: float
    """Unix time since when `revision` is served."""
    last_attempt: float | None
    """Unix time of the last reading of the source."""
    last_error: str | None
    """Why the state is `failed`."""
    error_since: float | None
    routes: tuple[RouteStatus, ...]
    missing_secrets: tuple[str, ...]
    """Secrets, or entries of them, that are named and not there or not readable."""
    inactive: tuple[str, ...]
    """Fields of served routes that this version does not act on."""


@dataclass(frozen=True, slots=True)
class Reload:
    """One reading of a changed source. `swapped` says whether requests see a new snapshot from now on."""

    result: Result
    swapped: bool
    status: ReloadStatus

    @property
    def message(self) -> str:
        status = self.status
        match status.state:
            case "waiting":
                return "there is no configuration yet"
            case "failed" if status.revision is None:
                return f"there is no usable configuration: {status.last_error}"
            case "failed":
                return f"the last good configuration is kept: {status.last_error}"
            case "partial":
                refused = [f"{route.name}: {route.reason}" for route in status.routes if not route.accepted]
                return f"configuration served without the newest version of some routes: {'; '.join(refused[:5])}"
            case "current":
                return "configuration served"


def inactive_of(route: c.CompiledRoute) -> tuple[str, ...]:
    """The same as the contract's `inactive_fields`, said of a compiled route; a test holds the two together."""
    found = []
    for index, limit in enumerate(route.limits):
        found += [
            f"spec.limits[{index}].{kind} is not enforced by this version"
            for kind in ("tokens", "concurrency", "budget")
            if getattr(limit, kind) is not None
        ]
        if limit.requests is not None and limit.scope == "Gateway":
            found.append(f"spec.limits[{index}].scope Gateway is counted in each pod by this version")
    for index, upstream in enumerate(route.upstreams):
        if upstream.url.startswith("litellm://"):
            found.append(f"spec.upstreams[{index}].url litellm:// is not served by this version")
    for index, model in enumerate(route.models):
        if len({target.weight for target in model.targets}) > 1:
            found.append(
                f"spec.models[{index}].targets weights are not applied by this version; targets are tried in order"
            )
    if route.log_sample:
        found.append("spec.logging.sample is not applied by this version; every request is logged")
    return tuple(found)
