"""What can be set, in one place."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from llmroute_contract.compiled import CompiledSharedState


@dataclass(frozen=True, slots=True)
class CertificateSettings:
    """For the injector's certificate; certificates/rotation.py tells what the times are for."""

    namespace: str
    """Of the injector."""
    lifetime: timedelta = timedelta(days=90)
    publish: timedelta = timedelta(seconds=30)
    retire: timedelta = timedelta(hours=1)
    made_elsewhere: bool = False
    """By cert-manager, from whose Secret they are taken."""


@dataclass(frozen=True, slots=True)
class Settings:
    namespaces: tuple[str, ...] = ()
    """Those that are looked after; none means all."""
    kubeconfig: Path | None = None
    """None: the service account of the pod."""
    health_host: str = "0.0.0.0"  # noqa: S104 - kubelet probes the pod's address
    health_port: int = 8080
    relist_seconds: float = 300
    remove_empty_after: timedelta = timedelta(seconds=300)
    shared_state: CompiledSharedState | None = None
    """Where gateways count what is of scope Gateway; None: each pod for itself."""
    certificates: CertificateSettings | None = None
    """None: they are not ours to make."""
    workers: int = 32
    """Gateways in work at once. A gateway is in work until its routes are told, which waits its turn (`status_writes`);
    were there few, a changed route would wait behind the telling of others."""
    status_writes: int = 8
    """Status writes at the same time."""
    touches_per_second: float = 50.0
    """Pods touched after a change of their gateway, so that kubelet brings it to them at once; 0: none."""

    @property
    def scopes(self) -> Sequence[str | None]:
        """What is listed and watched apart: each namespace, or None for the whole cluster."""
        return self.namespaces or (None,)


# How long a watch can be silent. The API server ends one after WATCH_SECONDS at the latest; a client's own limit stands
# behind that, for a connection that died without a word (kopf#585, kopf#957); then a new request begins.
WATCH_SECONDS = 120
WATCH_CLIENT_SECONDS = WATCH_SECONDS + 30
CONNECT_SECONDS = 10
REQUEST_SECONDS = 30
SILENCE_MAX_SECONDS = WATCH_CLIENT_SECONDS + CONNECT_SECONDS + 20.0

RECONCILE_REST_SECONDS = 0.3
"""Of a gateway, after each reconcile: a storm of edits ends in one write of its last state."""


class CannotStart(Exception):
    """What a person has to mend first, in one sentence."""
