"""What OpenTelemetry calls things that concern generative AI: metrics, attributes and their values. The one module that
owns these names, for the conventions are still moving (open-telemetry/semantic-conventions-genai, status: development).

Metrics stand in Prometheus' spelling (dots to underscores, the unit as a suffix, annotations such as `{token}` not at
all) with the buckets that the conventions give. The gateway tells of a request as its client sees it, under the names
of a model server; of tokens it tells as the client of its upstreams. `gen_ai.request.model` is the model that was asked
for, by the name of its entry in the configuration, `llmroute.upstream` the upstream that served or was called last.
"""

from functools import lru_cache
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from llmroute_contract.scalars import UpstreamUrl
from llmroute_sidecar.telemetry.series import HistogramSeries

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - no secret
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
ERROR_TYPE = "error.type"
UPSTREAM = "llmroute.upstream"

DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BUCKETS = tuple(4**power for power in range(14))
FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
OUTPUT_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    # The conventions have no word for these, and leave it to us.
    "/v1/moderations": "moderation",
    "/v1/rerank": "rerank",
    "/v1/images/generations": "image_generation",
}
OTHER = "other"

_PROVIDERS_BY_HOST = (
    (".openai.azure.com", "azure.ai.openai"),
    (".models.ai.azure.com", "azure.ai.inference"),
    (".services.ai.azure.com", "azure.ai.inference"),
    (".generativelanguage.googleapis.com", "gcp.gemini"),
    (".aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("-aiplatform.googleapis.com", "gcp.vertex_ai"),
    (".amazonaws.com", "aws.bedrock"),
    (".anthropic.com", "anthropic"),
    (".cohere.com", "cohere"),
    (".cohere.ai", "cohere"),
    (".deepseek.com", "deepseek"),
    (".groq.com", "groq"),
    (".cloud.ibm.com", "ibm.watsonx.ai"),
    (".mistral.ai", "mistral_ai"),
    (".moonshot.ai", "moonshot_ai"),
    (".moonshot.cn", "moonshot_ai"),
    (".perplexity.ai", "perplexity"),
    (".x.ai", "x_ai"),
)
"""Host names that end so, or are so but for the dot."""
_PROVIDERS_OF_LITELLM = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""Where litellm's word for a provider is another than the conventions'."""


def operation_of(template: str) -> str:
    """The operation that a path's template stands for."""
    return _OPERATIONS.get(template, OTHER)


@lru_cache(maxsize=1024)
def provider_of(url: UpstreamUrl, protocol: str) -> str:
    """The provider behind an upstream, as far as its address tells; else the one whose protocol it speaks."""
    if url.scheme == "litellm":
        return _PROVIDERS_OF_LITELLM.get(url.host, url.host)
    for ending, provider in _PROVIDERS_BY_HOST:
        if f".{url.host}".endswith(ending):
            return provider
    return protocol.lower()


class GenAiLabels(NamedTuple):
    """What all of these metrics are told by, in the order of their labels; values from the configuration alone. "" is
    none."""

    operation: str
    provider: str
    model: str
    upstream: str


_LABELS = tuple(name.replace(".", "_") for name in (OPERATION, PROVIDER, REQUEST_MODEL, UPSTREAM))


class GenAiMetrics:
    """The conventions' metrics, in one registry. `call_series.py` counts in them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tokens = HistogramSeries(
            "gen_ai_client_token_usage",
            "Tokens of a request, where its answer told them.",
            (*_LABELS, TOKEN_TYPE.replace(".", "_")),
            TOKEN_BUCKETS,
            registry,
        )
        self.duration = HistogramSeries(
            "gen_ai_server_request_duration_seconds",
            "From a request's head to the last byte of its answer, for requests whose model could be read.",
            (*_LABELS, ERROR_TYPE.replace(".", "_")),
            DURATION_BUCKETS,
            registry,
        )
        self.first_token = HistogramSeries(
            "gen_ai_server_time_to_first_token_seconds",
            "From a request's head to the first content that went to the client, of streams.",
            _LABELS,
            FIRST_TOKEN_BUCKETS,
            registry,
        )
        self.output_token = HistogramSeries(
            "gen_ai_server_time_per_output_token_seconds",
            "From the first content to the stream's end, by each token after the first.",
            _LABELS,
            OUTPUT_TOKEN_BUCKETS,
            registry,
        )
