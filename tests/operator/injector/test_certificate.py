"""What the injector knows of the certificate that it serves."""

from datetime import UTC, datetime, timedelta

import pytest

from llmroute_operator.certificates.certificate import make
from llmroute_operator.injector.certificate import ServingCertificate

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def test_what_is_served_ends_when_the_first_of_its_chain_does() -> None:
    """cert-manager writes the certificate and what stands between it and the authority into one file."""
    made, between = make(["injector"], NOW, timedelta(days=90)), make(["authority"], NOW, timedelta(days=30))
    serving = ServingCertificate()
    assert serving.ends is None
    serving.take([made.pem, made.key_pem])
    assert serving.ends == NOW + timedelta(days=90)
    serving.take([made.pem + between.authority.pem, made.key_pem])
    assert serving.ends == NOW + timedelta(days=30)


def test_one_that_is_not_taken_changes_nothing_of_that() -> None:
    made, other = make(["injector"], NOW, timedelta(days=90)), make(["injector"], NOW, timedelta(days=9))
    serving = ServingCertificate()
    serving.take([made.pem, made.key_pem])
    for chain, key in ((other.pem, made.key_pem), (b"", made.key_pem), (other.pem, b"")):
        with pytest.raises(ValueError, match="cannot be used together"):
            serving.take([chain, key])
    assert serving.ends == NOW + timedelta(days=90)
