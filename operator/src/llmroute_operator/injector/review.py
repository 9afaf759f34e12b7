"""AdmissionReview (`admission.k8s.io/v1`): the API server's question and our answer, as bytes."""

from typing import Any, Literal

import msgspec

from llmroute_operator.injector.inject import Allowed, Decision, Denied
from llmroute_operator.injector.pod import Read

_API_VERSION = "admission.k8s.io/v1"
_WARNING_MAX = 250
"""Characters. The API server cuts warnings above 256, and the first few together at 4 KiB."""
_MESSAGES_MAX = 20


class Resource(Read, frozen=True):
    group: str
    version: str
    resource: str


class Request(Read, frozen=True):
    uid: str
    resource: Resource
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    namespace: str = ""
    sub_resource: str = ""
    object: Any = None
    """The pod; a Deployment's comes without a name."""

    @property
    def is_new_pod(self) -> bool:
        """All that the webhook's rules send here. Anything else is let through as it is."""
        pods = (self.resource.group, self.resource.version, self.resource.resource) == ("", "v1", "pods")
        return pods and self.operation == "CREATE" and not self.sub_resource and isinstance(self.object, dict)


class _Question(Read, frozen=True):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: Request


class NotAReview(ValueError):
    """The text says what is wrong with the body."""


def read_review(body: bytes) -> Request:
    try:
        return msgspec.json.decode(body, type=_Question).request
    except msgspec.DecodeError as error:
        raise NotAReview(f"is no AdmissionReview of {_API_VERSION}: {error}") from None
    except (UnicodeDecodeError, RecursionError):
        raise NotAReview(f"is no AdmissionReview of {_API_VERSION}") from None


class _Status(Read, frozen=True):
    code: int
    reason: str
    message: str


class _Response(Read, frozen=True, omit_defaults=True):
    uid: str
    allowed: bool | None = None
    patch_type: str | None = None
    patch: bytes | None = None
    """In base64, as JSON has bytes."""
    status: _Status | None = None
    warnings: list[str] | None = None


class _Answer(Read, frozen=True, tag_field="kind", tag="AdmissionReview"):
    api_version: str
    response: _Response


def answer(uid: str, decision: Decision) -> bytes:
    return msgspec.json.encode(_Answer(_API_VERSION, _response(uid, decision)))


def _response(uid: str, decision: Decision) -> _Response:
    match decision:
        case Allowed(operations, warnings):
            return _Response(
                uid,
                allowed=True,
                patch_type="JSONPatch" if operations else None,
                patch=msgspec.json.encode(operations) if operations else None,
                warnings=[f"llmroute: {text}"[:_WARNING_MAX] for text in warnings[:_MESSAGES_MAX]] or None,
            )
        case Denied(messages):
            more = len(messages) - _MESSAGES_MAX
            text = "; ".join([*messages[:_MESSAGES_MAX], *([f"and {more} more"] if more > 0 else [])])
            return _Response(uid, allowed=False, status=_Status(422, "Invalid", text))
