"""When to try again: what an upstream's headers ask for, how long to back off, and how to tell a client.

The forms read are those providers send: `retry-after-ms`, `retry-after` in seconds or as an HTTP date (RFC 9110
§10.2.3), and `x-ratelimit-reset-requests` / `-tokens` in OpenAI's form (`120ms`, `1m30s`) or in seconds. The first
header that can be read has the word; of the two resets the later one, as either may be what was reached.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache

RETRY_AFTER_MAX = 3600.0
BACKOFF_MAX = 30.0
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TEXT_MAX = 64
"""Characters of the longest value that can mean something; no upstream makes us parse more."""
_NOISE = 1e-6
"""Seconds that a difference of clock readings may be off; not rounded up into a whole second."""


def retry_after(headers: Mapping[str, str], now_unix: float, *, limited: bool) -> float | None:
    """Seconds that an answer asks to wait, from 0 to RETRY_AFTER_MAX; None where it says nothing usable (a date that
    has passed, a negative number, junk). Names in lower case. Never raises.

    `limited`: it says that a limit is reached (429), so that the limits' resets mean a wait. They stand on each of
    OpenAI's answers, and tell when a limit will be whole again, which after a failure is nothing to wait for."""
    asked = _seconds(headers.get("retry-after-ms"), unit=0.001)
    if asked is None:
        asked = _seconds(headers.get("retry-after"))
    if asked is None:
        asked = _until(headers.get("retry-after"), now_unix)
    if asked is None and limited:
        resets = (_reset(headers.get("x-ratelimit-reset-requests")), _reset(headers.get("x-ratelimit-reset-tokens")))
        asked = max((reset for reset in resets if reset is not None), default=None)
    return None if asked is None else min(asked, RETRY_AFTER_MAX)


def _seconds(text: str | None, unit: float = 1.0) -> float | None:
    if text is None or len(text) > _TEXT_MAX:
        return None
    text = text.strip()
    return float(text) * unit if _NUMBER.fullmatch(text) else None


def _until(text: str | None, now_unix: float) -> float | None:
    """Seconds to an HTTP date in any of its three forms, or None once it has passed."""
    if not text or len(text) > _TEXT_MAX:
        return None
    try:
        instant = parsedate_to_datetime(text)
        if instant.tzinfo is None:  # RFC 9110 §5.6.7: an asctime date is in UTC
            instant = instant.replace(tzinfo=UTC)
        left = instant.timestamp() - now_unix
    except (ValueError, TypeError, IndexError, OverflowError):  # what that parser raises on junk
        return None
    return left if left >= 0 else None


def _reset(text: str | None) -> float | None:
    seconds = _seconds(text)
    if seconds is not None or text is None or len(text) > _TEXT_MAX or not _DURATION.fullmatch(text.strip()):
        return seconds
    return sum((float(number) * _UNIT[unit] for number, unit in _PART.findall(text)), start=0.0)


def backoff(attempt: int, base: float, jitter: float) -> float:
    """Seconds to wait after the `attempt`-th try (from 1): exponential up to BACKOFF_MAX, with full jitter. `jitter`
    is random in [0, 1)."""
    doublings = min(max(attempt, 1) - 1, 64)  # 2.0 ** 1024 overflows
    return min(base * 2.0**doublings, BACKOFF_MAX) * jitter


def pause_before_retry(attempt: int, base: float, jitter: float, asked: float | None) -> float | None:
    """Seconds to wait before a retry, after the `attempt`-th try (from 1): the back-off, or what the upstream `asked`
    for where that is longer; None where it asked for more than BACKOFF_MAX: others may serve at once."""
    if asked is not None and asked > BACKOFF_MAX:
        return None
    return max(backoff(attempt, base, jitter), asked or 0.0)


@lru_cache(4096)  # a window that has just counted a request always resets after its whole length
def format_reset(seconds: float) -> str:
    """OpenAI's form of a time to wait: `120ms`, `1s`, `1m30s`, `6m0s`, `2h0m0s`; rounded up, to milliseconds below
    one second and to seconds above."""
    millis = max(0, math.ceil((seconds - _NOISE) * 1000))
    if millis < 1000:
        return f"{millis}ms" if millis else "0s"
    minutes, rest = divmod(math.ceil(seconds - _NOISE), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def format_retry_after(seconds: float) -> str:
    """Whole seconds for `Retry-After`: rounded up, at least 1."""
    return str(max(1, math.ceil(seconds - _NOISE)))
