"""Every file that has a source in the code. `make generate` writes them; a test fails when one is stale."""

from collections.abc import Mapping
from pathlib import Path

from llmroute_contract.crd import crd_yaml
from llmroute_sidecar.pipeline.errors import TABLE
from monitoring.files import files as monitoring_files
from tests.sidecar.failure_table import failures_page
from tools.chart import CHART, copies, readme
from tools.metrics_page import metrics_page
from tools.reference_page import reference_page

REPOSITORY = Path(__file__).parents[1]
HEADER = "<!-- Generated from sidecar/src/llmroute_sidecar/pipeline/errors.py by `make generate`. Do not edit. -->\n"
ABOUT = """
# Errors

Every error is OpenAI's (`{"error": {"message", "type", "param", "code"}}`); on `/v1/messages` it is Anthropic's
(`{"type": "error", "error": {"type", "message", "code"}}`). `x-llmroute-origin` says who said no: `gateway`, or
`upstream` for an answer that is handed on as it is (400, 404, 409, 413, 422 and other 4xx of the provider's).

The SDKs try 408, 409, 429 and 5xx again of themselves, unless `x-should-retry: false` tells them that it is of no use.
Two things change what the last column says: an `upstream_failed` that is nothing but throttling may be tried again
after its `Retry-After`, and whatever asks for more than a minute's wait may not.

| code | status | OpenAI type | Anthropic type | when | SDKs retry |
|---|---|---|---|---|---|
"""


def errors_page() -> str:
    """docs/errors.md: the error table, as the gateway has it."""
    rows = "".join(
        f"| `{code}` | {row.status} | `{row.type}` | `{row.anthropic_type}` | {row.case} | "
        f"{_retried(row.status, row.retry)} |\n"
        for code, row in TABLE.items()
    )
    return HEADER + ABOUT + rows


def _retried(status: int, worthwhile: bool) -> str:
    """The official SDKs try 408, 409, 429 and 5xx again unless `x-should-retry` is `false`."""
    if status not in (408, 409, 429) and status < 500:
        return "no"
    return "yes" if worthwhile else "no: `x-should-retry: false`"


def generated() -> Mapping[Path, str]:
    """Each generated file and what must be in it."""
    made = {
        REPOSITORY / "manifests" / "crd" / "llmroutes.yaml": crd_yaml(),
        REPOSITORY / "docs" / "errors.md": errors_page(),
        REPOSITORY / "docs" / "metrics.md": metrics_page(),
        REPOSITORY / "docs" / "failures.md": failures_page(),
        REPOSITORY / "docs" / "reference.md": reference_page(),
        **{REPOSITORY / path: text for path, text in monitoring_files().items()},
    }
    return {**made, **copies(made), CHART / "README.md": readme()}


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
