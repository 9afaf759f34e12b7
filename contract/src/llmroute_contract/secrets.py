"""Which Secrets a gateway has to have, and which a pod's gateway has: names alone, never a value.

The injector mounts what `secrets_needed` says into the pods that it makes; the controller compares it with
`secrets_mounted` of the pods that there are. Each Secret is mounted whole: a route may take to another entry of the
same one without a new pod.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from llmroute_contract.llmroute import LLMRouteSpec
from llmroute_contract.pods import GATEWAY_CONTAINER, SECRETS_DIRECTORY
from llmroute_contract.upstream import Upstream


def secrets_needed(spec: LLMRouteSpec) -> frozenset[str]:
    """Names of the Secrets (in the route's namespace) that a gateway needs to serve this route."""
    keys = spec.auth.keys_from
    clients = [keys.secret_ref.name] if keys is not None else []
    return frozenset([*clients, *(name for upstream in spec.upstreams for name in _of(upstream))])


def _of(upstream: Upstream) -> Iterator[str]:
    if upstream.credential is not None:
        yield upstream.credential.secret_ref.name
    if upstream.tls is not None and upstream.tls.ca_from is not None:
        yield upstream.tls.ca_from.secret_ref.name
    if upstream.tls is not None and upstream.tls.client_cert_from is not None:
        yield upstream.tls.client_cert_from.secret_ref.name


def secrets_mounted(pod: Mapping[str, object]) -> frozenset[str]:
    """Names of the Secrets that the gateway in `pod` (a document of the API server) can come to see: none where the pod
    has no gateway."""
    spec = pod.get("spec")
    if not isinstance(spec, Mapping):
        return frozenset()
    names = _secret_volumes(spec)
    return frozenset(
        names[volume]
        for container in _maps(spec.get("initContainers"))
        if container.get("name") == GATEWAY_CONTAINER
        for mount in _maps(container.get("volumeMounts"))
        if (volume := mount.get("name")) in names and mount.get("mountPath") == secret_directory(names[volume])
    )


def secret_directory(secret: str) -> str:
    """Where a Secret's entries are in the gateway's container."""
    return str(PurePosixPath(SECRETS_DIRECTORY) / secret)


def _secret_volumes(spec: Mapping[str, object]) -> dict[object, str]:
    """From a volume's name to its Secret's."""
    return {
        volume.get("name"): name
        for volume in _maps(spec.get("volumes"))
        for source in _maps([volume.get("secret")])
        if isinstance(name := source.get("secretName"), str)
    }


def _maps(items: object) -> Iterator[Mapping[str, object]]:
    if isinstance(items, Sequence):
        yield from (item for item in items if isinstance(item, Mapping))
