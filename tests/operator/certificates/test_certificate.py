"""Certificates: what is made serves real TLS under the strictest checks, and what is read back is checked."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmroute_operator.certificates import objects
from llmroute_operator.certificates.certificate import ServingCertificate, Unreadable, make, read, read_authorities
from tests.sidecar.certificates import Authority

NAME = "llmroute-injector.llmroute-system.svc"
NAMES = objects.service_names("llmroute-system")


def made(lifetime: timedelta = timedelta(days=90)) -> ServingCertificate:
    return make(NAMES, datetime.now(UTC), lifetime)


def handshake(serving: ServingCertificate, trusted: bytes, name: str, folder: Path) -> None:
    """Over real sockets and OpenSSL. Raises ssl.SSLError."""
    (folder / "tls.crt").write_bytes(serving.pem)
    (folder / "tls.key").write_bytes(serving.key_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    client = ssl.create_default_context(cadata=trusted.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as connection:
                connection.recv(1)
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as connection:
            assert connection.version() == "TLSv1.3"
            connection.send(b"x")
    finally:
        ours.close()
        thread.join(10)


def test_a_made_one_serves_every_name_to_whoever_trusts_its_authority(tmp_path: Path) -> None:
    one = made()
    for name in NAMES:
        handshake(one, one.authority.pem, name, tmp_path)


def test_another_name_or_another_authority_is_refused(tmp_path: Path) -> None:
    one = made()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(one, one.authority.pem, "llmroute-injector.elsewhere.svc", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(one, made().authority.pem, NAME, tmp_path)


def test_what_is_made_is_read_back_the_same() -> None:
    one = made()
    assert read(one.pem, one.key_pem, one.authority.pem) == one
    assert one.names == NAMES
    assert one.key_pem.decode() not in repr(one)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a, b: (a.pem, b.key_pem, a.authority.pem), "key is not the certificate's"),
        (lambda a, b: (a.pem, a.key_pem, b.authority.pem), "has not signed|not PEM"),
        (lambda a, _: (b"", a.key_pem, a.authority.pem), "not PEM"),
        (lambda a, _: (a.pem, b"garbage", a.authority.pem), "not PEM"),
        (lambda a, _: (a.pem, a.key_pem, b"\xff"), "not PEM"),
        (lambda a, _: (a.pem[:200], a.key_pem, a.authority.pem), "not PEM"),
        (lambda a, _: (a.authority.pem, a.key_pem, a.authority.pem), "kind that llmroute does not make"),
    ],
)
def test_what_does_not_belong_together_is_not_read(change: object, said: str) -> None:
    assert callable(change)
    with pytest.raises(Unreadable, match=said) as raised:
        read(*change(made(), made()))
    assert "BEGIN" not in str(raised.value)


def test_a_chain_is_read_up_to_its_authority(tmp_path: Path) -> None:
    """As cert-manager has it, where an issuer's own certificate was signed by another."""
    root, between = Authority(tmp_path / "root"), Authority(tmp_path / "between")
    between.signed_by(root)
    certificate, key = between.certificate(f"DNS:{NAME}")
    chain, key_pem = certificate.read_bytes() + between.pem.encode(), key.read_bytes()
    for trusted in (root, between):
        found = read(chain, key_pem, trusted.pem.encode())
        assert found.pem == chain
        assert found.names == {NAME}
    with pytest.raises(Unreadable, match=r"has not signed|not PEM"):
        read(certificate.read_bytes(), key_pem, root.pem.encode())


def test_one_that_is_its_own_authority_is_read(tmp_path: Path) -> None:
    """As cert-manager's issuer of kind SelfSigned has it."""
    one = Authority(tmp_path)
    one.names_itself(NAME)
    found = read(one.pem.encode(), (tmp_path / "ca.key").read_bytes(), one.pem.encode())
    assert found.authority.pem == found.pem


def test_a_bundle_is_read_whatever_stands_around_its_certificates() -> None:
    a, b = made().authority, made().authority
    assert read_authorities(a.pem + b"\n# a comment\n" + b.pem + a.pem) == (a, b)
    assert read_authorities(b" \n") == ()
    with pytest.raises(Unreadable):
        read_authorities(b"not PEM")


def test_a_secret_with_half_a_certificate_tells_which_keys_are_wrong() -> None:
    one = made()
    patch = objects.stage_patch({"metadata": {"resourceVersion": "1"}}, one)
    data = {"tls.crt": "!", "tls.key": "", **patch["data"]}
    content = objects.read_secret({"data": data})
    assert content.served is None
    assert content.next == one
    assert [problem.split(":")[0] for problem in content.problems] == ["tls.crt, tls.key, ca.crt"]
