"""Kubernetes' quantities (`250m`, `64Mi`): read, and compared as numbers."""

import re
from decimal import Decimal

_FORM = re.compile(
    r"(?P<number>[+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?P<suffix>[eE][-+]?[0-9]{1,2}|[KMGTPE]i|[numkMGTPE]?)"
)
_BINARY = {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_LENGTH_MAX = 40


def parse_quantity(text: object) -> Decimal:
    """Raises ValueError for what is no quantity, or a negative one."""
    written = str(text)
    found = _FORM.fullmatch(written) if len(written) <= _LENGTH_MAX and not isinstance(text, bool) else None
    if found is None:
        raise ValueError("is no quantity such as 250m, 1, 64Mi or 1Gi")
    number, suffix = Decimal(found["number"]), found["suffix"]
    if suffix in _BINARY:
        return number * _BINARY[suffix]
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    return number.scaleb(int(suffix[1:]))


def amount(text: object) -> Decimal | None:
    """As `parse_quantity`; None for what is none. For what the API server will judge."""
    try:
        return parse_quantity(text)
    except ValueError:
        return None
