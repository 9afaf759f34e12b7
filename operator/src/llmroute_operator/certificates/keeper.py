"""Looks at the objects every few seconds, has `rotation.py` decide, and writes what it says.

It looks instead of watching: two small reads, and the answer carries the API server's clock.
"""

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never

from llmroute_operator.certificates import objects
from llmroute_operator.certificates.certificate import ServingCertificate, make
from llmroute_operator.certificates.requests import CertificateRequests
from llmroute_operator.certificates.rotation import (
    Decision,
    Found,
    Terms,
    Wait,
    WriteBundle,
    WriteSecret,
    decide,
)
from llmroute_operator.controller.api_server import ClusterError, Document, Refused
from llmroute_operator.controller.backoff import backoff
from llmroute_operator.controller.metrics import Metrics
from llmroute_operator.controller.settings import CertificateSettings

_logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
RETRY_MOST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Objects:
    webhooks: Document
    secret: Document
    content: objects.SecretContent
    offered: ServingCertificate | None


class CertificateKeeper:
    def __init__(self, requests: CertificateRequests, metrics: Metrics, settings: CertificateSettings) -> None:
        self._requests = requests
        self._metrics = metrics
        self._namespace = settings.namespace
        self._terms = Terms(
            objects.service_names(settings.namespace),
            settings.lifetime,
            settings.publish,
            settings.retire,
            settings.made_elsewhere,
        )
        self._look_seconds = min(LOOK_SECONDS, settings.publish.total_seconds() / 4)
        self._versions: tuple[str, str] | None = None
        self._unchanged_since = 0.0
        self._told: tuple[str, ...] = ()

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                rest = await self._look()
                failures = 0
            except ClusterError as error:
                failures += 1
                rest = backoff(failures, random.random(), RETRY_MOST_SECONDS)  # noqa: S311 - jitter
                if isinstance(error, Refused) and error.is_conflict:
                    _logger.info("certificate: somebody was quicker", extra={"fields": {"error": str(error)}})
                else:
                    self._metrics.certificate_looked("error")
                    _logger.warning(
                        "certificate: the API server did not do what was asked",
                        extra={"fields": {"error": str(error), "retry_in_seconds": round(rest, 1)}},
                    )
            await asyncio.sleep(rest)

    async def _look(self) -> float:
        """One step at most; the answer is in how many seconds to look again."""
        began = time.monotonic()
        webhooks, _ = await self._requests.read_webhooks(objects.WEBHOOKS)  # before the Secret: see rotation.py
        secret, now = await self._requests.read_secret(self._namespace, objects.SECRET)
        if webhooks is None or not webhooks.get("webhooks") or secret is None:
            self._tell_missing(webhooks, secret)
            return self._look_seconds
        content = objects.read_secret(secret)
        offered, problems = await self._offered() if self._terms.made_elsewhere else (None, ())
        there = _Objects(webhooks, secret, content, offered)
        self._tell((*content.problems, *problems))
        unchanged_for = self._unchanged_for(there, began)
        found = Found(
            there.content.served, there.content.next, objects.read_bundles(webhooks), unchanged_for, now, offered
        )
        rest = await self._act(decide(found, self._terms), found, there)
        self._metrics.certificate_looked("success")
        return min(self._look_seconds, rest)

    async def _offered(self) -> tuple[ServingCertificate | None, tuple[str, ...]]:
        """What cert-manager has made, and what is amiss with it."""
        secret, _ = await self._requests.read_secret(self._namespace, objects.OFFERED)
        if secret is None:
            return None, (
                f"there is no Secret {objects.OFFERED} in {self._namespace} yet, which cert-manager makes: "
                f"kubectl describe certificate llmroute-injector -n {self._namespace}",
            )
        content = objects.read_offered(secret)
        return content.served, tuple(f"Secret {objects.OFFERED}: {one}" for one in content.problems)

    def _unchanged_for(self, there: _Objects, began: float) -> timedelta:
        """For how long it has certainly been as it is, up to when this look began."""
        versions = (there.webhooks["metadata"]["resourceVersion"], there.secret["metadata"]["resourceVersion"])
        if versions != self._versions:
            self._versions, self._unchanged_since = versions, time.monotonic()
            return timedelta(0)
        return timedelta(seconds=began - self._unchanged_since)

    async def _act(self, decision: Decision, found: Found, there: _Objects) -> float:
        match decision:
            case Wait(time=rest):
                return max(0.0, rest.total_seconds())
            case WriteBundle(authorities=authorities, is_retirement=is_retirement):
                await self._requests.patch_webhooks(objects.WEBHOOKS, objects.bundle_patch(there.webhooks, authorities))
                self._metrics.wrote("MutatingWebhookConfiguration")
                message = "certificate: authorities retired" if is_retirement else "certificate: authority published"
                _logger.info(message, extra={"fields": {"authorities": len(authorities)}})
            case WriteSecret.STAGE:
                made = there.offered or make(self._terms.names, found.now, self._terms.lifetime)
                await self._patch_secret(objects.stage_patch(there.secret, made))
                _logger.info("certificate: made", extra={"fields": {"not_after": made.not_after.isoformat()}})
            case WriteSecret.PROMOTE:
                assert found.next is not None
                await self._patch_secret(objects.promote_patch(there.secret, found.next))
                _logger.info("certificate: serving", extra={"fields": {"not_after": found.next.not_after.isoformat()}})
            case WriteSecret.DISCARD:
                await self._patch_secret(objects.discard_patch(there.secret))
                _logger.info("certificate: one that was made is of no use any more")
            case _:
                assert_never(decision)
        return 0.0

    async def _patch_secret(self, patch: objects.Document) -> None:
        await self._requests.patch_secret(self._namespace, objects.SECRET, patch)
        self._metrics.wrote("Secret")

    def _tell_missing(self, webhooks: Document | None, secret: Document | None) -> None:
        self._versions = None
        problems = []
        if not (webhooks or {}).get("webhooks"):
            problems.append(
                f"there is no MutatingWebhookConfiguration {objects.WEBHOOKS}: the injector is not installed"
            )
        if secret is None:
            problems.append(
                f"there is no Secret {objects.SECRET} in {self._namespace}; an empty one will be filled: "
                f"kubectl create secret generic {objects.SECRET} -n {self._namespace}"
            )
        self._tell(tuple(problems))

    def _tell(self, problems: tuple[str, ...]) -> None:
        """Once, until it changes."""
        if problems != self._told:
            for problem in problems:
                _logger.warning("certificate: something is amiss", extra={"fields": {"problem": problem}})
        self._told = problems
