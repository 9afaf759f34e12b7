"""The webhook's certificate, renewed while it serves: connections that stand are left alone, new ones get the new one.

Each handshake asks for the context in use (OpenSSL's servername callback, which runs where no name is sent too). A new
context for each certificate, and not a new certificate in the old one: OpenSSL keeps one for each type of key, and
might go on with the old one.
"""

import os
import ssl
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509


class ServingCertificate:
    def __init__(self) -> None:
        self._current: ssl.SSLContext | None = None
        self.context = _context()
        """To listen with. Handshakes fail until a certificate was taken."""
        self.context.sni_callback = self._choose
        self.ends: datetime | None = None
        """When what is served ends: the certificate, or what signed it as far as the chain has that."""

    def take(self, contents: Sequence[bytes]) -> None:
        """A certificate's chain and its key, in PEM. Raises ValueError."""
        chain, key = contents
        fresh = _context()
        try:
            _load(fresh, chain, key)
        except ssl.SSLError as error:
            # The text of OpenSSL names the reason and nothing of the key.
            raise ValueError(f"certificate and key cannot be used together: {error.reason}") from None
        ends = min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(chain))
        # OpenSSL looks for a certificate before it asks the callback.
        _load(self.context, chain, key)
        self._current, self.ends = fresh, ends

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if self._current is not None:
            connection.context = self._current


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    """From memory: what was read is what is loaded, whatever becomes of the files, and the root file system is
    read-only."""
    pem = chain.rstrip() + b"\n" + key.rstrip() + b"\n"
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("llmroute-injector-certificate")
        try:
            os.write(descriptor, pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, "certificate.pem")
        path.touch(mode=0o600)
        path.write_bytes(pem)
        context.load_cert_chain(path)
