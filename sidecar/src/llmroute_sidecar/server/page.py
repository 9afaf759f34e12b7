"""The pages of the admin port: each one file that asks this gateway's own endpoints and nobody else.

Their policy (Content Security Policy Level 3) names a page's one script and one style sheet by hash and lets the
browser talk to this origin alone; it forbids to make HTML of text (Trusted Types), so that a model or a client named
`<script>` stays a name.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Page:
    content: bytes
    headers: Mapping[str, str]


@cache
def page(name: str) -> Page:
    """The one of that file, read when it is first asked for: a gateway that nobody looks at does not hold it."""
    text = (FOLDER / name).read_text("utf-8")
    policy = (
        "default-src 'none'",
        f"script-src {_hash(text, 'script')}",
        f"style-src {_hash(text, 'style')}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    headers = {
        "content-security-policy": "; ".join(policy),
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-cache",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return Page(text.encode(), headers)


def _hash(text: str, element: str) -> str:
    """Of what stands in the page's only `element`, as a source of the policy."""
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
