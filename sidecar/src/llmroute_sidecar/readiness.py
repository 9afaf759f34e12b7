"""Asks a gateway of this machine whether it is ready: for `postStart` hooks, in an image that has no curl."""

import http.client
import time

_ASK_SECONDS = 0.2
_ANSWER_SECONDS = 2.0


def wait_until_ready(port: int, within: float) -> bool:
    """Asks at least once, then for `within` seconds; whether it was ready."""
    deadline = time.monotonic() + within
    while not _is_ready(port):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_ASK_SECONDS)
    return True


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
