"""The LLMRoute API of a real API server, spoken over HTTP: a call takes milliseconds, kubectl half a second."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from llmroute_contract.llmroute import API_VERSION, PLURAL
from tests.cluster.control_plane import ControlPlane
from tests.contract.routes import Document
from tests.waiting import HANGS_AFTER


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API server said, as kubectl shows it, and its parts."""

    status: int
    message: str
    causes: tuple[tuple[str, str], ...]
    """Field and message of each."""

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


@dataclass(frozen=True, slots=True)
class RouteApi:
    """LLMRoutes of one namespace, as kubectl would write them: with strict field validation."""

    namespace: str
    _client: httpx.Client

    def take(self, document: Document, *, dry_run: bool = True) -> Document | Refusal:
        """Creates the route (or only says what would become of it): as stored, or why not."""
        parameters = {"fieldValidation": "Strict", "dryRun": "All"} if dry_run else {"fieldValidation": "Strict"}
        document = {**document, "metadata": {**document["metadata"], "namespace": self.namespace}}
        return _outcome(self._client.post(self._path(), json=document, params=parameters))

    def apply(self, document: Document, manager: str, subresource: str = "") -> Document | Refusal:
        """Server-side apply."""
        name = document["metadata"]["name"]
        return _outcome(
            self._client.patch(
                f"{self._path()}/{name}{subresource}",
                json=document,
                params={"fieldManager": manager, "fieldValidation": "Strict"},
                headers={"content-type": "application/apply-patch+yaml"},
            )
        )

    def read(self, name: str) -> Document:
        found: Document = self._client.get(f"{self._path()}/{name}").raise_for_status().json()
        return found

    def _path(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/{PLURAL}"


@contextmanager
def route_api(control_plane: ControlPlane) -> Iterator[RouteApi]:
    """In a namespace of its own."""
    with httpx.Client(
        base_url=control_plane.url,
        verify=ssl.create_default_context(cafile=str(control_plane.ca_file)),
        headers={"authorization": f"Bearer {control_plane.admin_token}"},
        timeout=HANGS_AFTER,
    ) as client:
        yield RouteApi(control_plane.new_namespace(), client)


def _outcome(answer: httpx.Response) -> Document | Refusal:
    body: dict[str, Any] = answer.json()
    if answer.is_success:
        return body
    causes = (body.get("details") or {}).get("causes") or ()
    return Refusal(
        answer.status_code,
        body["message"],
        tuple((cause.get("field", ""), cause.get("message", "")) for cause in causes),
    )
