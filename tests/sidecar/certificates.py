"""Certificates for TLS upstreams of the tests, made with the openssl command."""

import ssl
import subprocess
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A CA of the test's own, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._openssl(
            "req", "-x509", *_CURVE, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=tests", "-days", "2"
        )

    def signed_by(self, other: "Authority") -> None:
        """From now on it is one that another vouches for."""
        above = other._folder.resolve()
        self._openssl("req", "-new", "-key", "ca.key", "-out", "ca.csr", "-subj", "/CN=between")
        (self._folder / "ca.ext").write_text("basicConstraints=critical,CA:true\nsubjectKeyIdentifier=hash\n")
        self._openssl(
            "x509", "-req", "-in", "ca.csr", "-CA", f"{above}/ca.crt", "-CAkey", f"{above}/ca.key", "-CAcreateserial",
            "-extfile", "ca.ext", "-days", "2", "-out", "ca.crt",
        )  # fmt: skip

    def names_itself(self, name: str) -> None:
        """From now on its certificate is a server's, too."""
        names = f"subjectAltName=DNS:{name}"
        self._openssl(
            "req", "-x509", "-key", "ca.key", "-out", "ca.crt", "-subj", "/CN=self", "-days", "2", "-addext", names
        )

    @property
    def pem(self) -> str:
        return (self._folder / "ca.crt").read_text()

    def server(self, name: str = "IP:127.0.0.1", *, expired: bool = False) -> ssl.SSLContext:
        """The context of a server whose certificate is for `name`, as openssl writes alternative names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate(name, expired=expired))
        return context

    def certificate(self, name: str = "IP:127.0.0.1", *, expired: bool = False) -> tuple[Path, Path]:
        """The files of such a certificate and of its key; a client may show it, too."""
        file = f"{name.replace(':', '-')}{'-expired' if expired else ''}"
        (self._folder / f"{file}.ext").write_text(f"subjectAltName={name}\n")
        self._openssl("req", *_CURVE, "-keyout", f"{file}.key", "-out", f"{file}.csr", "-subj", "/CN=upstream")
        self._openssl(
            "x509", "-req", "-in", f"{file}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-extfile", f"{file}.ext", "-days", "-1" if expired else "2", "-out", f"{file}.crt",
        )  # fmt: skip
        return self._folder / f"{file}.crt", self._folder / f"{file}.key"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)
