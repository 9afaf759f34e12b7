"""The conventions' words for what the configuration says."""

import pytest

from llmroute_contract.scalars import parse_upstream_url
from llmroute_sidecar.telemetry.genai import TOKEN_BUCKETS, provider_of


@pytest.mark.parametrize(
    ("url", "protocol", "provider"),
    [
        ("https://api.openai.com/v1", "OpenAI", "openai"),
        ("https://api.anthropic.com", "Anthropic", "anthropic"),
        ("https://shop.openai.azure.com/openai/v1", "OpenAI", "azure.ai.openai"),
        ("https://shop.services.ai.azure.com/models", "OpenAI", "azure.ai.inference"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "OpenAI", "gcp.gemini"),
        ("https://europe-west4-aiplatform.googleapis.com/v1", "OpenAI", "gcp.vertex_ai"),
        ("https://aiplatform.googleapis.com/v1", "OpenAI", "gcp.vertex_ai"),
        ("https://bedrock-runtime.eu-central-1.amazonaws.com", "OpenAI", "aws.bedrock"),
        ("https://api.x.ai/v1", "OpenAI", "x_ai"),
        ("https://api.mistral.ai/v1", "OpenAI", "mistral_ai"),
        ("https://mistral.ai/v1", "OpenAI", "mistral_ai"),
        ("https://notmistral.ai/v1", "OpenAI", "openai"),
        ("http://vllm.models.svc:8000/v1", "OpenAI", "openai"),
        ("http://claude-proxy:8000", "Anthropic", "anthropic"),
        ("mock://local", "OpenAI", "openai"),
        ("litellm://openai/gpt-4o", "OpenAI", "openai"),
        ("litellm://vertex_ai/gemini-2", "OpenAI", "gcp.vertex_ai"),
        ("litellm://groq/llama", "OpenAI", "groq"),
    ],
)
def test_the_provider_is_known_by_its_address_or_else_by_the_protocol(url: str, protocol: str, provider: str) -> None:
    assert provider_of(parse_upstream_url(url), protocol) == provider


def test_token_buckets_are_those_of_the_conventions() -> None:
    assert TOKEN_BUCKETS[:4] == (1, 4, 16, 64)
    assert (len(TOKEN_BUCKETS), TOKEN_BUCKETS[-1]) == (14, 67108864)
