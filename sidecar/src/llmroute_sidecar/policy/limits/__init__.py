"""How much may be used: requests and tokens in a sliding window, calls at once, money in a calendar period.

`rules.py` has the limits as values and what is said of them, `ledger.py` counts a call in all of its limits or in
none. Behind it one module for each kind (`requests.py`, `tokens.py`, `slots.py`, `budgets.py`), `places.py` for what
bounds their memory, `demand.py` for how much a call is expected to use.
"""

from llmroute_sidecar.policy.limits.requests import Limiter
from llmroute_sidecar.policy.limits.rules import Admitted, Refused, RequestLimit, Standing

__all__ = ["Admitted", "Limiter", "Refused", "RequestLimit", "Standing"]
