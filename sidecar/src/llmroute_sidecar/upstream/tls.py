"""TLS towards an upstream: the system's trust or a private CA, and a client certificate where one is asked for."""

import os
import ssl
import tempfile
from functools import lru_cache
from pathlib import Path

from llmroute_sidecar.snapshot import TlsMaterial


def client_context(material: TlsMaterial | None) -> ssl.SSLContext:
    """A context that verifies the upstream's certificate and name. Raises ssl.SSLError where a PEM text is no good."""
    if material is None:
        return _default_context()
    context = ssl.create_default_context(cadata=material.ca.decode("ascii", "replace") if material.ca else None)
    return _prepared(context, material)


@lru_cache(maxsize=1)
def _default_context() -> ssl.SSLContext:
    """One for all upstreams that need nothing special: reading the system's trust store takes tens of milliseconds,
    which a reload with many new upstreams would spend on each."""
    return _prepared(ssl.create_default_context(), None)


def _prepared(context: ssl.SSLContext, material: TlsMaterial | None) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
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
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "client.pem")
            path.touch(mode=0o600)
            path.write_bytes(pem)
            context.load_cert_chain(path)
