"""Routes with `litellm://` upstreams, and the Secrets that they name."""

from pathlib import Path
from typing import Any

from tests.gateway_process import spec, upstream, write_secret

URLS = {
    "openai": "litellm://openai/gpt-test",
    "anthropic": "litellm://anthropic/claude-test",
    "gemini": "litellm://gemini/gemini-test",
}
CREDENTIALS = {name: f"canary-credential-of-{name}" for name in URLS}
STEADY = {"maxFailures": 1000}
"""A breaker that no test opens by the way."""


def api_base(name: str, provider_url: str) -> str:
    """As litellm has it: what follows is `/chat/completions`, `/v1/messages` and `/models/…`."""
    return f"{provider_url}/v1" if name == "openai" else provider_url


def litellm_upstream(name: str, provider_url: str, **changes: Any) -> dict[str, Any]:
    return upstream(
        name,
        URLS[name],
        credential={"secretRef": {"name": name, "key": "key"}},
        litellm={"apiBase": api_base(name, provider_url)},
        breaker=STEADY,
        **changes,
    )


def three_providers(provider_url: str) -> dict[str, Any]:
    """A model for each provider, and `chained`: Anthropic's, then OpenAI's."""
    return spec(
        provider_url,
        upstreams=[litellm_upstream(name, provider_url) for name in URLS],
        models=[
            *({"name": name, "targets": [{"upstream": name}], "retry": {"attempts": 1}} for name in URLS),
            {"name": "renamed", "targets": [{"upstream": "openai", "model": "gpt-other"}]},
            {"name": "chained", "targets": [{"upstream": "anthropic"}], "fallbacks": ["openai"]},
            {"name": "any-*", "targets": [{"upstream": "openai"}]},
        ],
        defaultUpstream="anthropic",
    )


def write_credentials(secrets: Path) -> None:
    for name, credential in CREDENTIALS.items():
        write_secret(secrets, name, {"key": f"{credential}\n"})
