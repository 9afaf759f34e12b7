"""A serving certificate with the authority that signed it: makes one, and reads one back with care.

Each authority signs one certificate and its key is forgotten at once: there is no authority's key to store or to
steal, and to renew the certificate is to change the authority, so that the way of doing so is walked every time.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATED = timedelta(days=1)
"""Certificates are good from so long before they were made: clocks differ, and are set back."""


class Unreadable(ValueError):
    """The text is no certificate of ours; says why, without showing it."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Whose signature is trusted. Equal where the PEM is; `read_authorities` brings that into one form."""

    pem: bytes
    not_before: datetime


@dataclass(frozen=True, slots=True)
class ServingCertificate:
    pem: bytes
    """With what stands between it and the authority, if anything does."""
    key_pem: bytes = field(repr=False)
    authority: Authority
    names: frozenset[str]
    """DNS names that it is good for."""
    not_before: datetime
    not_after: datetime
    """Also the end of all that vouches for it."""


def make(names: Iterable[str], now: datetime, lifetime: timedelta) -> ServingCertificate:
    """A new one, ECDSA P-256, good for `lifetime` from `now`, under a new authority."""
    ordered = sorted(names)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    authority_name = _name(f"llmroute injector CA {serial:x}"[:64])
    start, end = (now - BACKDATED).replace(microsecond=0), now.replace(microsecond=0) + lifetime
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), serial, start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    leaf = (
        _builder(_name(ordered[0][:64]), authority_name, key.public_key(), x509.random_serial_number(), start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in ordered]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ServingCertificate(_pem(leaf), key_pem, _authority(authority), frozenset(ordered), start, end)


def read(pem: bytes, key_pem: bytes, authority_pem: bytes) -> ServingCertificate:
    """Raises Unreadable unless all three belong together."""
    try:
        leaf, *between = x509.load_pem_x509_certificates(pem)
        key = serialization.load_pem_private_key(key_pem, None)
        authority = x509.load_pem_x509_certificate(authority_pem)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if key.public_key() != leaf.public_key():
            raise Unreadable("the key is not the certificate's")
        chain = [leaf, *between, authority]
        for one, issuer in pairwise(chain):
            if one != issuer:  # one that is its own authority; an authority that stands in the chain, too
                one.verify_directly_issued_by(issuer)
    except (TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise Unreadable("it is of a kind that llmroute does not make") from None
    except InvalidSignature:
        raise Unreadable("the authority has not signed the certificate") from None
    except Unreadable:
        raise
    except ValueError:
        raise Unreadable("it is not PEM of a certificate, its key and its authority") from None
    return ServingCertificate(
        pem,
        key_pem,
        _authority(authority),
        frozenset(names.get_values_for_type(x509.DNSName)),
        max(one.not_valid_before_utc for one in chain),
        min(one.not_valid_after_utc for one in chain),
    )


def read_authorities(bundle: bytes) -> tuple[Authority, ...]:
    """Those of a PEM bundle, each once. Raises Unreadable where one of them is none."""
    if not bundle.strip():
        return ()
    try:
        found = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        raise Unreadable("the bundle is not PEM of certificates") from None
    return tuple(dict.fromkeys(_authority(one) for one in found))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    serial: int,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(issuer, subject, key, serial, start, end)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(certificate: x509.Certificate) -> Authority:
    return Authority(_pem(certificate), certificate.not_valid_before_utc)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
