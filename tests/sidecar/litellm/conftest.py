"""The real litellm, in its own environment, for all tests of `litellm://` upstreams. Nothing here is a fake."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway_process import GatewayProcess, running
from tests.provider import Provider, providing
from tests.sidecar.litellm.direct import DirectWorker
from tests.sidecar.litellm.providers import any_provider
from tests.sidecar.litellm.routes import three_providers, write_credentials

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def litellm_python() -> Path:
    """The interpreter of the environment that `make litellm` makes, as `make test` does."""
    python = REPOSITORY / ".venv-litellm" / "bin" / "python"
    if not (REPOSITORY / ".venv-litellm" / ".ready").exists():
        reason = "there is no .venv-litellm: run `make litellm`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return python


@pytest.fixture(scope="session")
def session_provider() -> Iterator[Provider]:
    with providing(any_provider) as provider:
        yield provider


@pytest.fixture
def provider(session_provider: Provider) -> Iterator[Provider]:
    """One server for OpenAI's, Anthropic's and Gemini's API; a test may change its behaviour for itself."""
    yield session_provider
    session_provider.behaviour = any_provider


@pytest.fixture(scope="session")
def worker(litellm_python: Path) -> Iterator[DirectWorker]:
    """The worker's program without a gateway."""
    with DirectWorker(litellm_python) as worker:
        yield worker


@pytest.fixture(scope="session")
def gateway(
    litellm_python: Path, session_provider: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway with an upstream for each provider: `openai`, `anthropic`, `gemini`, each a model's name too."""
    folder = tmp_path_factory.mktemp("litellm")
    write_credentials(folder / "secrets")
    routes = {"chat": three_providers(session_provider.url)}
    with running(folder, routes, "--litellm-python", str(litellm_python), "--log-level", "debug") as gateway:
        yield gateway
