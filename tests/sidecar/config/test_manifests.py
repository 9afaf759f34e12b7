"""LLMRoute manifests as a source: what is chosen, what a broken file does, where secrets come from."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmroute_contract import compiled as c
from llmroute_sidecar.config.files import InTrouble
from llmroute_sidecar.config.manifests import ManifestSource
from llmroute_sidecar.config.reload import Reloader
from llmroute_sidecar.config.source import Reading, SourceError, TryAgain
from tests.cluster.projection import project

ROUTE = """\
apiVersion: llmroute.dev/v1alpha1
kind: LLMRoute
metadata: {{name: {name}{namespace}}}
spec:
  gateway: {gateway}
  auth: {{mode: Keys, keysFrom: {{secretRef: {{name: clients}}}}}}
  upstreams: [{{name: up, url: "mock://local"}}]
  models: [{{name: {model}, targets: [{{upstream: {upstream}}}]}}]
"""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: clients}\nstringData: {app: dev-key}\n"


def route(name: str, *, model: str = "m", upstream: str = "up", gateway: str = "default", namespace: str = "") -> str:
    space = f", namespace: {namespace}" if namespace else ""
    return ROUTE.format(name=name, model=model, upstream=upstream, gateway=gateway, namespace=space)


def written(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def served(reading: Reading) -> dict[str, list[str]]:
    """Models by route."""
    index = c.decode(reading.files[c.GATEWAY_FILE], c.CompiledGateway)
    routes = [c.decode(reading.files[entry.file], c.CompiledRoute) for entry in index.routes]
    return {found.name: [model.name for model in found.models] for found in routes}


def test_a_folder_is_read_with_its_routes_and_secrets(tmp_path: Path) -> None:
    folder = written(tmp_path, one=f"{route('a', model='x')}---\n{SECRET}", two=route("b", model="y"), notes="")
    (folder / "README.md").write_text("not: [yaml")
    reading = ManifestSource([folder]).read()
    assert served(reading) == {"a": ["x"], "b": ["y"]}
    assert reading.secrets.entries("clients") == {"app": b"dev-key"}
    assert reading.problems == ()


def test_a_secret_that_stands_in_no_file_comes_from_the_secrets_directory(tmp_path: Path) -> None:
    mounted = tmp_path / "secrets" / "clients"
    mounted.mkdir(parents=True)
    (mounted / "app").write_bytes(b"mounted-key")
    folder = written(tmp_path / "secrets" / "..", one=route("a"))
    source = ManifestSource([folder / "one.yaml"], secrets_dir=tmp_path / "secrets")
    assert source.read().secrets.read("clients", "app") == b"mounted-key"
    before = source.fingerprint()
    (mounted / "app").write_bytes(b"rotated-key")
    assert source.fingerprint() != before
    assert source.read().secrets.read("clients", "app") == b"rotated-key"


def save_in_place(file: Path, text: str) -> None:
    file.write_text(text)


def save_by_renaming(file: Path, text: str) -> None:
    """As editors do, and `kubectl get -o yaml > new && mv new old`."""
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").rename(file)


def save_by_swapping_a_link(file: Path, text: str) -> None:
    """As a mounted ConfigMap of routes, one of whose files is named."""
    project(file.parent, {file.name: text.encode()})


@pytest.mark.parametrize("save", [save_in_place, save_by_renaming, save_by_swapping_a_link])
def test_one_file_is_followed_however_it_is_saved(tmp_path: Path, save: Callable[[Path, str], None]) -> None:
    file = tmp_path / "volume" / "routes.yaml"
    file.parent.mkdir()
    save(file, route("a", model="m"))
    reloader = Reloader(ManifestSource([file]))
    for models in ({"m"}, {"n"}, {"o"}):
        save(file, route("a", model=min(models)))
        reload = reloader.tick()
        assert reload is not None
        assert reload.snapshot is not None
        assert reload.snapshot.model_names == models


def test_a_file_that_cannot_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, one=route("a")) / "one.yaml"
    source = ManifestSource([file])

    def no_descriptors(path: Path, limit_bytes: int) -> bytes:
        raise InTrouble(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))

    with monkeypatch.context() as patched:
        patched.setattr("llmroute_sidecar.config.documents.read_bounded", no_descriptors)
        with pytest.raises(TryAgain, match=r"one.yaml: cannot be read: Too many open files"):
            source.read()
    assert served(source.read()) == {"a": ["m"]}


def test_a_broken_route_stays_as_it_was_and_the_others_update(tmp_path: Path) -> None:
    source = ManifestSource([written(tmp_path, a=route("a", model="a1"), b=route("b", model="b1"))])
    source.read()
    written(tmp_path, a=route("a", model="a2", upstream="nobody"), b=route("b", model="b2"))
    reading = source.read()
    assert served(reading) == {"a": ["a1"], "b": ["b2"]}
    (problem,) = reading.problems
    assert problem.startswith(f"{tmp_path}/a.yaml:8: spec.models[0].targets[0].upstream: no upstream is named 'nobody'")


def test_a_route_that_was_never_good_does_not_keep_the_others_from_being_served(tmp_path: Path) -> None:
    reading = ManifestSource([written(tmp_path, a=route("a", upstream="nobody"), b=route("b", model="b1"))]).read()
    assert served(reading) == {"b": ["b1"]}
    assert len(reading.problems) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1\n", "one.yaml:2: is not YAML"),
        (route("a", upstream="nobody"), "one.yaml:8: spec.models[0].targets[0].upstream: no upstream"),
        (route("a") + "---\n" + route("a"), "one.yaml:12: metadata.name: LLMRoute 'a' is at"),
        (SECRET, "there is no LLMRoute in these files"),
        ("- a\n", "one.yaml:1: is not a Kubernetes resource"),
        (route("a") + "extra: 1\n", "one.yaml:9: extra: is not a field"),
        (route("a") + "---\n" + SECRET.replace("stringData: {app: dev-key}", "data: {app: '%'}"), "data.app"),
        (route("a", gateway="x") + "---\n" + route("b"), "several gateways"),
    ],
)
def test_what_is_wrong_with_the_files_as_a_whole_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SourceError) as refused:
        ManifestSource([written(tmp_path, one=text) / "one.yaml"]).read()
    assert told in str(refused.value)


def test_a_secret_value_is_never_told(tmp_path: Path) -> None:
    text = route("a") + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {app: hush-hush-%}\n"
    with pytest.raises(SourceError) as refused:
        ManifestSource([written(tmp_path, one=text)]).read()
    assert "hush" not in str(refused.value)


def test_gateway_and_namespace_choose(tmp_path: Path) -> None:
    text = "---\n".join([route("a", gateway="x"), route("b"), route("c", namespace="shop")])
    folder = written(tmp_path, one=text)
    assert served(ManifestSource([folder], gateway="x").read()) == {"a": ["m"]}
    assert served(ManifestSource([folder], gateway="default", namespace="default").read()) == {"b": ["m"]}
    with pytest.raises(SourceError, match="several gateways"):
        ManifestSource([folder]).read()
    with pytest.raises(SourceError, match="there is gateway x in namespace default"):
        ManifestSource([folder], gateway="nobody").read()


def test_routes_and_secrets_without_a_namespace_are_of_the_one_asked_for(tmp_path: Path) -> None:
    text = "---\n".join([route("a"), route("b", namespace="other"), SECRET])
    reading = ManifestSource([written(tmp_path, one=text)], namespace="shop").read()
    assert served(reading) == {"a": ["m"]}
    assert c.decode(reading.files[c.GATEWAY_FILE], c.CompiledGateway).namespace == "shop"
    assert reading.secrets.read("clients", "app") == b"dev-key"


def test_the_fingerprint_follows_content_not_times(tmp_path: Path) -> None:
    folder = written(tmp_path, one=route("a"))
    source = ManifestSource([folder])
    before = source.fingerprint()
    (folder / "one.yaml").touch()
    assert source.fingerprint() == before
    same_size = (folder / "one.yaml").read_text().replace("name: a", "name: b")
    (folder / "one.yaml").write_text(same_size)
    assert source.fingerprint() != before
    (folder / "one.yaml").unlink()
    gone = source.fingerprint()
    assert gone != before
    folder.rmdir()
    assert source.fingerprint() != gone


def test_settled_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path, one=route("a"))
    source = ManifestSource([folder], now_ns=lambda: 1 << 62)  # all was written long ago
    before = source.fingerprint()

    def unwanted(path: Path, limit_bytes: int) -> bytes:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr("llmroute_sidecar.config.files.read_bounded", unwanted)
    assert source.fingerprint() == before


def test_a_list_as_kubectl_get_writes_it_is_read(tmp_path: Path) -> None:
    items = "".join("  " + line if index else "- " + line for index, line in enumerate(route("a").splitlines(True)))
    reading = ManifestSource([written(tmp_path, one=f"apiVersion: v1\nkind: List\nitems:\n{items}")]).read()
    assert served(reading) == {"a": ["m"]}
