"""TLS towards upstreams and the shared state: the system's trust or a private CA, and a client certificate where one is
asked for.
"""

import os
import ssl
import tempfile
from functools import lru_cache
from pathlib import Path

from llmroute_sidecar.snapshot import TlsMaterial

_NO_PASSWORD = ""
"""For a key that is encrypted: else OpenSSL asks the terminal, and the gateway stands still until it is told."""


def client_context(material: TlsMaterial | None) -> ssl.SSLContext:
    """A context that verifies the upstream's certificate and name. Raises ssl.SSLError where a PEM text is no good."""
    if material is None:
        return _default_context()
    context = _prepared(_trusting(material.ca), material)
    context.set_alpn_protocols(["http/1.1"])
    return context


def shared_state_context(material: TlsMaterial | None) -> ssl.SSLContext:
    """The same towards a server that does not speak HTTP."""
    return _prepared(_trusting(material.ca if material is not None else None), material)


def _trusting(ca: bytes | None) -> ssl.SSLContext:
    """One that trusts `ca`, or what the system trusts."""
    return ssl.create_default_context(cadata=ca.decode("ascii", "replace") if ca else None)


@lru_cache(maxsize=1)
def _default_context() -> ssl.SSLContext:
    """One for all upstreams that need nothing special: reading the system's trust store takes tens of milliseconds,
    which a reload with many new upstreams would spend on each."""
    context = _prepared(_trusting(None), None)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _prepared(context: ssl.SSLContext, material: TlsMaterial | None) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if material is not None and material.cert is not None and material.key is not None:
        _load_client_certificate(context, material.cert, material.key)
    return context


def _load_client_certificate(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """ssl reads certificates from files only: from memory where the system can (root is read-only in a pod)."""
    pem = cert.rstrip() + b"\n" + key.rstrip() + b"\n"
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("llmroute-client-certificate")
        try:
            os.write(fd, pem)
            context.load_cert_chain(f"/proc/self/fd/{fd}", password=_NO_PASSWORD)
        finally:
            os.close(fd)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "client.pem")
            path.touch(mode=0o600)
            path.write_bytes(pem)
            context.load_cert_chain(path, password=_NO_PASSWORD)
