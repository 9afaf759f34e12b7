"""The Secret and the webhook configuration: what is read out of them, and the patches that change them. Pure.

Both are made by whoever installs (chart, manifests) and only filled in here, so that the controller needs no right to
create anything. Every patch names the version that was read: where it is another by now, it is a conflict.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmroute_operator.certificates.certificate import (
    Authority,
    ServingCertificate,
    Unreadable,
    read,
    read_authorities,
)

SERVICE = "llmroute-injector"
WEBHOOKS = "llmroute-injector"
"""The MutatingWebhookConfiguration."""
SECRET = "llmroute-injector-tls"  # noqa: S105 - its name
OFFERED = "llmroute-injector-cert-manager-tls"
"""The Secret that cert-manager fills, where it makes the certificates. It is only read."""

Document = Mapping[str, Any]

_SERVED = ("tls.crt", "tls.key", "ca.crt")
_NEXT = ("next.crt", "next.key", "next-ca.crt")


def service_names(namespace: str) -> frozenset[str]:
    """By which the API server calls the injector (the first), and what people try."""
    return frozenset({f"{SERVICE}.{namespace}.svc", f"{SERVICE}.{namespace}.svc.cluster.local"})


@dataclass(frozen=True, slots=True)
class SecretContent:
    served: ServingCertificate | None
    next: ServingCertificate | None
    problems: tuple[str, ...]
    """Of what is there and cannot be read, one sentence each."""


def read_secret(document: Document) -> SecretContent:
    data: Mapping[str, str] = document.get("data") or {}
    problems: list[str] = []
    served, following = (_certificate(data, keys, problems) for keys in (_SERVED, _NEXT))
    return SecretContent(served, following, tuple(problems))


def read_offered(document: Document) -> SecretContent:
    """Of cert-manager's Secret: what it calls its certificate. What else lies there is nothing to us."""
    problems: list[str] = []
    return SecretContent(_certificate(document.get("data") or {}, _SERVED, problems), None, tuple(problems))


def read_bundles(document: Document) -> tuple[tuple[Authority, ...] | None, ...]:
    """Of each webhook; None for one that cannot be read."""
    return tuple(_bundle(webhook) for webhook in document.get("webhooks") or ())


def stage_patch(document: Document, certificate: ServingCertificate) -> Document:
    return _secret_patch(document, _values(_NEXT, certificate))


def promote_patch(document: Document, certificate: ServingCertificate) -> Document:
    return _secret_patch(document, {**_values(_SERVED, certificate), **dict.fromkeys(_NEXT)})


def discard_patch(document: Document) -> Document:
    return _secret_patch(document, dict.fromkeys(_NEXT))


def bundle_patch(document: Document, authorities: tuple[Authority, ...]) -> list[Document]:
    """A JSON patch: a merge patch would have to hold every webhook as a whole."""
    bundle = base64.b64encode(b"".join(one.pem for one in authorities)).decode()
    return [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": document["metadata"]["resourceVersion"]},
        *(
            {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": bundle}
            for index in range(len(document["webhooks"]))
        ),
    ]


def _certificate(data: Mapping[str, str], keys: tuple[str, str, str], problems: list[str]) -> ServingCertificate | None:
    if not any(data.get(key) for key in keys):
        return None
    try:
        pem, key_pem, authority_pem = (base64.b64decode(data.get(key) or "") for key in keys)
        return read(pem, key_pem, authority_pem)
    except Unreadable as error:
        problems.append(f"{', '.join(keys)}: {error}")
        return None


def _bundle(webhook: Document) -> tuple[Authority, ...] | None:
    try:
        return read_authorities(base64.b64decode(webhook["clientConfig"].get("caBundle") or ""))
    except (Unreadable, binascii.Error):
        return None


def _values(keys: tuple[str, str, str], certificate: ServingCertificate) -> dict[str, str | None]:
    values = (certificate.pem, certificate.key_pem, certificate.authority.pem)
    return {key: base64.b64encode(value).decode() for key, value in zip(keys, values, strict=True)}


def _secret_patch(document: Document, data: Mapping[str, str | None]) -> Document:
    """A merge patch; None takes a key away."""
    return {"metadata": {"resourceVersion": document["metadata"]["resourceVersion"]}, "data": data}
