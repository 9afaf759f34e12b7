"""The shared state of this process: link, counting and breakers, put together and kept over reloads.

A changed address, password or certificate makes a new link, and what is counted goes on over that one; what was asked
on the old one is answered there.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence

from llmroute_sidecar.policy.breaker import Breaker
from llmroute_sidecar.policy.limits.demand import Demand
from llmroute_sidecar.policy.limits.ledger import Use
from llmroute_sidecar.policy.limits.rules import Limit, Refused
from llmroute_sidecar.policy.limits.shared import SharedLimits, SlotsMissing, prefix_of
from llmroute_sidecar.shared.breakers import SharedBreakers
from llmroute_sidecar.shared.counting import SharedCounting, SharedLease
from llmroute_sidecar.shared.link import Link, Standing
from llmroute_sidecar.snapshot import SharedState as SharedStateConfig
from llmroute_sidecar.telemetry.metrics import Metrics

CLOSE_SECONDS = 1.0
"""What is on its way may take so long at the end."""


class SharedState:
    def __init__(self, config: SharedStateConfig, metrics: Metrics) -> None:
        self._metrics = metrics
        self._limits = SharedLimits(prefix_of(config.namespace, config.gateway))
        self._closing: set[asyncio.Task[None]] = set()
        pod = secrets.token_hex(5)
        self._link = Link(config, self._limits, metrics)
        self._counting = SharedCounting(self._limits, self._link, pod)
        self._breakers = SharedBreakers(self._limits, self._link, pod)
        self._begin(self._link)

    def use(self, config: SharedStateConfig, breakers: Mapping[str, Breaker]) -> None:
        """Goes on with `config`; `breakers` are those of scope Gateway, by their upstreams' ids."""
        if config != self._link.config:
            old = self._link
            self._limits.prefix = prefix_of(config.namespace, config.gateway)
            self._link = self._counting.link = self._breakers.link = Link(config, self._limits, self._metrics)
            self._link.inherit(old)
            self._begin(self._link)
            task = asyncio.get_running_loop().create_task(old.close(CLOSE_SECONDS))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._breakers.watch(breakers)

    def _begin(self, link: Link) -> None:
        link.on_up = self._counting.renew
        link.start()

    async def close(self) -> None:
        self._counting.close()
        self._breakers.close()
        await self._link.close(CLOSE_SECONDS)
        self._metrics.shared_state_up.value = None

    async def admit(self, uses: Sequence[Use], demand: Demand, cost: int) -> SharedLease | Refused | SlotsMissing:
        """As SharedCounting.admit."""
        return await self._counting.admit(uses, demand, cost)

    def charge(self, uses: Sequence[Use], cost: int) -> None:
        self._counting.charge(uses, cost)

    def remaining(self, rule: Limit) -> int:
        return self._counting.remaining(rule)

    @property
    def standing(self) -> Standing:
        return self._link.standing
