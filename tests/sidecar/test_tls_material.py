"""The TLS material of upstreams: what is no good is told at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sidecar.certificates import Authority

ASKS = """
import ssl, sys
from llmroute_sidecar.snapshot import TlsMaterial
from llmroute_sidecar.upstream.tls import client_context
cert, key = (open(name, "rb").read() for name in sys.argv[1:])
try:
    client_context(TlsMaterial(None, cert, key))
except ssl.SSLError:
    print("no good")
"""


@pytest.mark.server
def test_an_encrypted_key_is_no_good_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    """OpenSSL asked at the terminal, or on standard input, and the gateway stood still meanwhile."""
    cert, key = Authority(tmp_path).certificate()
    encrypted = tmp_path / "encrypted.key"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", encrypted],
        check=True,
        capture_output=True,
    )
    process = subprocess.Popen(
        [sys.executable, "-c", ASKS, cert, encrypted],
        stdin=subprocess.PIPE,  # left open: who asks there waits
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # no terminal
    )
    try:
        assert process.stdout is not None
        process.wait(timeout=60)
        assert process.stdout.read() == "no good\n"
    finally:
        process.kill()
        process.communicate()
