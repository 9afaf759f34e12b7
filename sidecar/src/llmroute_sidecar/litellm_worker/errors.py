"""What litellm raised, as a status and an OpenAI-shaped error. Pure; goes by the names of exception classes.

The status decides what the gateway does (its error table): 400, 404, 413 and 422 are the client's mistake and go back
to it, 401 and 403 are the gateway's own credential, 429 rests the upstream, all else is a failure. Messages of the
first kind are worth reading and are handed on, with whatever is secret, or an address, struck out; of the others the
client sees nothing anyway, so they say only what kind they are.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MESSAGE_MAX = 1000
_STATUS_BY_CLASS: Mapping[str, tuple[int, str]] = {
    # The first of an exception's classes, from its own upwards, that stands here decides.
    "LiteLLMUnknownProvider": (501, "unknown_provider"),
    "ContextWindowExceededError": (400, "context_length_exceeded"),
    "ContentPolicyViolationError": (400, "content_policy_violation"),
    "UnsupportedParamsError": (400, "unsupported_parameter"),
    "ImageFetchError": (400, "invalid_image_url"),
    "PaymentRequiredError": (403, "billing"),  # the gateway's account, not the client's mistake
    "AuthenticationError": (401, "credential_refused"),
    "PermissionDeniedError": (403, "credential_refused"),
    "RateLimitError": (429, "rate_limit_exceeded"),
    "BudgetExceededError": (429, "rate_limit_exceeded"),
    "NotFoundError": (404, "not_found"),
    "UnprocessableEntityError": (422, "unprocessable"),
    "BadRequestError": (400, "invalid_request"),
    "ConflictError": (409, "conflict"),
    "Timeout": (504, "timeout"),
    "APITimeoutError": (504, "timeout"),
    "APIResponseValidationError": (502, "bad_response"),
    "APIConnectionError": (502, "connection_failed"),
    "BadGatewayError": (502, "server_error"),
    "ServiceUnavailableError": (503, "server_error"),
    "InternalServerError": (500, "server_error"),
}
_CLIENTS_MISTAKE = frozenset({400, 404, 409, 413, 422})
_PREFIX = re.compile(r"^(litellm\.)?\w*(Error|Exception)\b\s*[:-]\s*(\w*(Exception|Error)\b\s*[:-]?\s*)*")
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)
_KEY_LIKE = re.compile(r"\b(sk|pk|rk|gsk|xai|AIza|AKIA|Bearer|Basic)[-_ ]?[A-Za-z0-9_\-*.]{8,}")
_RETRY_HEADERS = ("retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")
_MESSAGES: Mapping[str, str] = {
    "invalid_image_url": "images must be sent as data: URLs: the gateway fetches nothing that a client names",
    "credential_refused": "the provider refused the credential",
    "billing": "the provider's account has a billing problem",
    "rate_limit_exceeded": "the provider asks for a pause",
    "timeout": "the provider took too long",
    "connection_failed": "the provider could not be reached",
    "bad_response": "the provider's answer could not be read",
    "unknown_provider": "litellm does not know this provider",
}


@dataclass(frozen=True)
class Failure:
    status: int
    code: str
    message: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        kind = "invalid_request_error" if self.status in _CLIENTS_MISTAKE else "api_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


def failure_of(raised: BaseException, secrets: Iterable[str]) -> Failure:
    """What `raised` means. `secrets` are struck out of whatever it says."""
    # A stream's exceptions come wrapped, for litellm's router.
    error = getattr(raised, "original_exception", None) or raised
    status, code = _classified(error)
    if status in _CLIENTS_MISTAKE:
        message = _MESSAGES.get(code) or cleaned(str(getattr(error, "message", error)), secrets)
    else:
        message = _MESSAGES.get(code, "the provider failed")
    return Failure(status, code, message, headers=_retry_headers(error) if status == 429 or status >= 500 else {})


def _classified(error: BaseException) -> tuple[int, str]:
    told = getattr(error, "status_code", None)
    told = told if isinstance(told, int) else None
    for kind in type(error).__mro__:
        if kind.__name__ in _STATUS_BY_CLASS:
            status, code = _STATUS_BY_CLASS[kind.__name__]
            if status == 400 and told is not None and told != 400:
                return _by_status(told)  # litellm has BadRequestError for 413 and others
            return status, code
    return _by_status(told) if told is not None else (500, "server_error")


def _by_status(status: int) -> tuple[int, str]:
    match status:
        case 401 | 402 | 403:
            return (401 if status == 401 else 403), "credential_refused"
        case 429:
            return 429, "rate_limit_exceeded"
        case 408:
            return 504, "timeout"
        case 400 | 404 | 409 | 413 | 422:
            return status, "invalid_request"
        case _:
            return (status if 500 <= status <= 599 else 502), "server_error"


def _retry_headers(error: BaseException) -> dict[str, str]:
    """When to come back, where the provider said so: litellm keeps its headers in one of several places."""
    found: dict[str, str] = {}
    for holder in (error, getattr(error, "response", None)):
        for name in ("litellm_response_headers", "headers"):
            headers = getattr(holder, name, None)
            if isinstance(headers, Mapping):
                for header in _RETRY_HEADERS:
                    value = headers.get(header)
                    if isinstance(value, str) and value.isascii() and value.isprintable():
                        found.setdefault(header, value[:100])
    return found


def cleaned(text: str, secrets: Iterable[str]) -> str:
    """`text` as a client may read it: the provider's own words where they can be found in it, no secret, no address."""
    text = text.partition("Traceback (most recent call last)")[0]
    text = _PREFIX.sub("", text.strip())
    text = _provider_words(text) or text
    for secret in secrets:
        text = text.replace(secret, "***")
    text = _KEY_LIKE.sub("***", _ADDRESS.sub("***", text)).strip()
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 1] + "…"


def _provider_words(text: str) -> str | None:
    """The message in the JSON that most providers answer with, which litellm quotes whole."""
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end < begin:
        return None
    try:
        document = json.loads(text[begin : end + 1])
    except (ValueError, RecursionError):
        return None
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else None
