"""When limits are shared out anew, as pods come and go. Sans-IO.

Each new number of pods is a new revision for all of them, so changes are waited for together: growth a moment, since
until then the sum of all shares is above the limit; shrinking longer, since that only leaves some of the limit unused,
and a rolling update does both by turns. What the ConfigMap holds is where it starts from, never a memory: so two
controllers come to the same.
"""

from dataclasses import dataclass

from llmroute_contract.compiled import CompiledShares
from llmroute_operator.controller.route import GatewayKey


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: what is waited for without a further change, and in all."""

    quiet: float
    most: float


GROWTH = Patience(1.0, 5.0)
SHRINKING = Patience(10.0, 30.0)


@dataclass(slots=True)
class _Pending:
    wanted: CompiledShares
    first: float
    latest: float


class ShareOut:
    def __init__(self) -> None:
        self._pending: dict[GatewayKey, _Pending] = {}

    def settle(
        self, key: GatewayKey, present: CompiledShares | None, wanted: CompiledShares, now: float
    ) -> tuple[CompiledShares, float | None]:
        """The shares to write now, and in how many seconds to look again. `present` are those that are written."""
        if present is None or present == wanted:
            self._pending.pop(key, None)
            return wanted, None
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = _Pending(wanted, now, now)
        elif pending.wanted != wanted:
            pending.wanted, pending.latest = wanted, now
        patience = GROWTH if wanted.pods > present.pods else SHRINKING
        due = min(pending.latest + patience.quiet, pending.first + patience.most)
        if now >= due:
            del self._pending[key]
            return wanted, None
        return present, due - now

    def forget(self, key: GatewayKey) -> None:
        self._pending.pop(key, None)
