"""How long to wait before the server is looked for again. Values in, seconds out.

Theory of operation
===================

A gateway should be back soon after its server is, and a server that comes back, or is ill, should not meet all gateways
of a fleet at once. So the pause grows with how long the server has been gone: an eighth of that, so that whoever was
away for a moment is missed for a moment, within these bounds:

                                                             least    most
    the try cost the server nothing (nobody listened)        0.25 s   1.5 s
    it had to do something (a name, TLS, a password, a wait) 0.25 s   3 s

Of that a pause is between a fifth and the whole, by chance: pods that lost their server in the same moment come back
one by one. 3,000 of them make 3,500 tries a second, and half as many of the costly ones, while nobody answers for long.
"""

LEAST = 0.25
MOST = 1.5
MOST_COSTLY = 3.0
_PART = 8
_SHORTEST = 0.2
"""Of the whole."""

CHEAP = frozenset({"connection_refused", "loading"})
"""Reasons for which a try has cost the server next to nothing."""


def pause(gone: float, reason: str, draw: float) -> float:
    """Seconds until the next try. The server has been `gone` for so many seconds; the last try failed for `reason`;
    `draw` is of [0, 1)."""
    whole = min(MOST if reason in CHEAP else MOST_COSTLY, max(LEAST, gone / _PART))
    return whole * (_SHORTEST + (1 - _SHORTEST) * draw)
