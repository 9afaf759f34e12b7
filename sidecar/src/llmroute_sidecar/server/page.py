"""The pages of the admin port: each one file that asks this gateway's own endpoints and nobody else.

Their policy (Content Security Policy Level 3) names a page's one script and one style sheet by hash and lets the
browser talk to this origin alone; it forbids to make HTML of text (Trusted Types), so that a model or a client named
`<script>` stays a name.
"""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from llmroute_sidecar.pipeline.errors import Answer

FOLDER = Path(__file__).parent


@cache
def page(name: str) -> Answer:
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
    headers = [
        (b"content-security-policy", "; ".join(policy).encode()),
        (b"content-type", b"text/html; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]
    return Answer(200, headers, text.encode())


def _hash(text: str, element: str) -> str:
    """Of what stands in the page's only `element`, as a source of the policy."""
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
