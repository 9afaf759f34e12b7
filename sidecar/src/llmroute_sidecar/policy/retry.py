"""When to try again: what an upstream's headers ask for, how long to back off, and how to tell a client.

The forms read are those providers send: `retry-after-ms`, `retry-after` in seconds or as an HTTP date (RFC 9110
§10.2.3), and `x-ratelimit-reset-requests` / `-tokens` in OpenAI's form (`120ms`, `1m30s`) or in seconds.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

RETRY_AFTER_MAX = 3600.0
BACKOFF_MAX = 30.0
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_WHOLE = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+")
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def retry_after(headers: Mapping[str, str], now_unix: float) -> float | None:
    """Seconds that an answer asks to wait, at most RETRY_AFTER_MAX; None where it says nothing usable. Names in lower
    case."""
    millis = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(millis):
        return min(float(millis) / 1000, RETRY_AFTER_MAX)
    text = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(text):
        return min(float(text), RETRY_AFTER_MAX)
    if text and (until := _http_date(text)) is not None:
        return min(max(0.0, until - now_unix), RETRY_AFTER_MAX)
    resets = [_reset(headers.get(f"x-ratelimit-reset-{kind}", "").strip()) for kind in ("requests", "tokens")]
    known = [reset for reset in resets if reset is not None]
    return min(max(known), RETRY_AFTER_MAX) if known else None


def _http_date(text: str) -> float | None:
    try:
        instant = parsedate_to_datetime(text)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _reset(text: str) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    if _WHOLE.fullmatch(text):
        return sum(float(number) * _UNIT[unit] for number, unit in _PART.findall(text))
    return None


def backoff(attempt: int, base: float, jitter: float) -> float:
    """Seconds to wait after the `attempt`-th try (from 1): exponential with full jitter; `jitter` is random in [0,
    1)."""
    return min(base * 2 ** (attempt - 1), BACKOFF_MAX) * jitter


def format_reset(seconds: float) -> str:
    """OpenAI's form of a time to wait: `120ms`, `1s`, `1m30s`, `6m0s`, `2h0m0s`; rounded up."""
    if seconds < 1:
        return f"{math.ceil(max(0.0, seconds) * 1000)}ms"
    whole = math.ceil(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def format_retry_after(seconds: float) -> str:
    """Whole seconds for `Retry-After`: rounded up, at least 1."""
    return str(max(1, math.ceil(seconds)))
