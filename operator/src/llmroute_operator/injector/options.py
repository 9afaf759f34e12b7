"""What the command's flags say, and the bounds that no flag changes."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    tls_cert: Path
    tls_key: Path
    settings: Path
    kubeconfig: Path | None = None
    """None: the service account of the pod."""
    host: str = "0.0.0.0"  # noqa: S104 - the API server calls the pod's address
    port: int = 8443
    health_host: str = "0.0.0.0"  # noqa: S104 - kubelet probes the pod's address
    health_port: int = 8080
    drain_seconds: float = 5.0
    """From failing readiness to the end of listening: for the Service to send nobody here any more."""
    relist_seconds: float = 300.0


BODY_MAX_BYTES = 8 * 1024 * 1024
"""An object may have 1.5 MiB in etcd; the review around it is small."""
IN_FLIGHT_MAX = 64
"""Admissions at the same time, waits for routes included: each holds its body. More are answered 503 at once."""
BODY_SECONDS = 5.0
"""For a body to come in whole: as long as the API server waits for an answer. It holds one of the places meanwhile."""
ROUTES_WAIT_SECONDS = 1.0
"""For the first route of a gateway, which may have been applied together with the pod, an instant later."""
WAITING_MAX = 16
"""Of those admissions, how many may wait for a route. Who comes with more is answered by what is known: pods of one
namespace without a route must not take the places of all others."""
CUT_SECONDS = 10.0
"""For admissions under way once nothing is listened to: longer than the API server waits for one."""
