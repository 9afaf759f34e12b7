"""The images, built from the real Dockerfiles: what is in them, what is not, and that they can be built again."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.go_build import Unavailable
from tests.cluster.images import (
    BASE,
    REGISTRY,
    REPOSITORY,
    Image,
    Storage,
    build,
    gateway_image,
    layers,
    litellm_image,
    opened_storage,
    operator_image,
    size_mib,
)
from tests.cluster.node import RealNode, check_machine
from tests.provider import answers, completion, providing, response
from tests.sidecar.local_process import started_by

pytestmark = [pytest.mark.node, pytest.mark.timeout(1200)]  # builds an image from its start

IMAGES = {"gateway": gateway_image, "operator": operator_image}
OURS = {"gateway": "llmroute-sidecar", "operator": "llmroute-operator"}
UNWANTED = {
    "gateway": {"fastapi", "uvicorn", "kopf", "kubernetes", "aiohttp", "litellm", "pip", "setuptools", "hatchling"},
    "operator": {"httptools", "uvloop", "litellm", "pip", "setuptools", "hatchling"},
}
TOOLS = {"pip", "pip3", "uv", "gcc", "cc", "g++", "make", "ld"}


@pytest.fixture(params=sorted(IMAGES))
def name(request: pytest.FixtureRequest, real_node: RealNode) -> str:
    """One image's name, on a machine where images can be built: `real_node` has made them, or said why not."""
    part: str = request.param
    return part


@contextmanager
def opened(storage: Storage, image: Image) -> Iterator[Path]:
    """The root of a container of this image, which has not run."""
    container = storage.run("from", f"oci-archive:{image.archive}")
    try:
        yield Path(storage.run("mount", container))
    finally:
        storage.run("rm", container)


def test_an_image_holds_its_part_and_what_its_lock_names(name: str) -> None:
    lock = (REPOSITORY / "requirements" / f"{name}.txt").read_text()
    locked = {plain(found) for found in re.findall(r"^([\w.-]+)==\S+ *(?:;[^\\\n]*)?\\?$", lock, re.MULTILINE)}
    with opened_storage() as storage, opened(storage, IMAGES[name]()) as root:
        packages = root / "opt" / "llmroute"
        bill = json.loads((packages / "sbom.cdx.json").read_text())
        listed = {plain(component["name"]) for component in bill["components"]}
        installed = {plain(path.name.split("-")[0]) for path in packages.glob("lib/python3*/site-packages/*.dist-info")}
        programs = {path.name for folder in ("usr/bin", "usr/local/bin", "opt/llmroute/bin", "usr/sbin", "bin")
                    for path in (root / folder).glob("*")}  # fmt: skip
        installers = [*root.glob("usr/**/ensurepip"), *root.glob("usr/**/pip-*.whl")]
        sources = [path for path in packages.glob("lib/python3*/site-packages/**/*.py") if path.stat().st_size]
        stale = [path for path in sources if not _has_unchecked_bytecode(path)]
    assert installed == listed == locked | {"llmroute-contract", OURS[name]}
    assert not installed & UNWANTED[name]
    assert not programs & TOOLS
    assert installers == []
    assert stale == []


def plain(distribution: str) -> str:
    """A distribution's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _has_unchecked_bytecode(source: Path) -> bool:
    """PEP 552: the second word of the file is 1, which is taken without a look at the source."""
    found = list((source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc"))
    return len(found) == 1 and found[0].read_bytes()[4:8] == b"\1\0\0\0"


def test_an_image_says_what_it_is_and_runs_as_nobody(name: str) -> None:
    with opened_storage() as storage:
        container = storage.run("from", f"oci-archive:{IMAGES[name]().archive}")
        described = json.loads(storage.run("inspect", container))["OCIv1"]["config"]
        storage.run("rm", container)
    config: dict[str, Any] = described
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == [f"/opt/llmroute/bin/{'llmroute' if name == 'gateway' else 'llmroute-operator'}"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.base.name"] == BASE
    assert name in labels["org.opencontainers.image.title"]


def test_the_same_sources_make_the_same_layers(name: str, tmp_path: Path) -> None:
    """Without the cache, from the start: every byte, mode and time."""
    first = IMAGES[name]()
    again = tmp_path / "again.tar"
    reference = f"{REGISTRY}/{name}-again:1"
    with opened_storage() as storage:
        build(name, reference, storage, "--no-cache")
        storage.save(reference, again)
        storage.run("rmi", reference)
    assert layers(again) == layers(first.archive)
    print(
        f"{name}: {size_mib(first.archive):.0f} MiB compressed, {size_mib(first.archive, ours=True):.0f} of them ours"
    )


ROUTE = """
apiVersion: llmroute.dev/v1alpha1
kind: LLMRoute
metadata: {name: chat}
spec:
  auth: {mode: None}
  upstreams:
    - name: openai
      url: litellm://openai/gpt-test
      litellm: {apiBase: "URL/v1"}
      credential: {secretRef: {name: openai, key: key}}
  models:
    - {name: chat, targets: [{upstream: openai}]}
---
apiVersion: v1
kind: Secret
metadata: {name: openai}
stringData: {key: sk-test}
"""


@pytest.fixture
def with_litellm() -> Image:
    """Made by `python -m tests.cluster`, where it was run."""
    try:
        check_machine()
        return litellm_image()
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"there is no image with litellm: {reason}")
        pytest.skip(f"there is no image with litellm: {reason}")


def test_the_image_with_litellm_answers_through_it(with_litellm: Image, tmp_path: Path) -> None:
    """In a container of buildah's on the machine's own network: it is too large to give it to the node for one call."""
    image = with_litellm
    with providing(answers(response(200, completion("from the provider")))) as provider, opened_storage() as storage:
        (tmp_path / "route.yaml").write_text(ROUTE.replace("URL", provider.url))
        tmp_path.chmod(0o755)
        container = storage.run("from", f"oci-archive:{image.archive}")
        program = ["/opt/llmroute/bin/llmroute", "run", "-f", "/routes/route.yaml", "--port", "0", "--admin-port", "0"]
        try:
            described = json.loads(storage.run("inspect", container))["OCIv1"]["config"]
            assert described["User"] == "65532:65532"
            mount = ["--volume", f"{tmp_path}:/routes:ro"]
            with started_by(storage.command("run", *mount, container, "--", *program), tmp_path / "log") as local:
                local.tells("Ctrl-C ends.")
                answer = local.ask("chat", key=None)
                assert answer.status_code == 200, answer.text
                assert answer.json()["choices"][0]["message"]["content"] == "from the provider"
                local.interrupt()
        finally:
            storage.run("rm", container)
    print(f"gateway-litellm: {size_mib(image.archive):.0f} MiB compressed")
