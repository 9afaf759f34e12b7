"""Secrets as Kubernetes mounts them, and as manifests hold them."""

from pathlib import Path

import pytest

from llmroute_sidecar.config import secrets as secrets_module
from llmroute_sidecar.config.secrets import SecretValues, read_secrets, secret_values
from tests.cluster.projection import project


def test_mounted_secrets_are_read_from_volumes_and_plain_folders(tmp_path: Path) -> None:
    project(tmp_path / "clients", {"app": b"one\n", "web": b"two"})
    (tmp_path / "openai").mkdir()
    (tmp_path / "openai" / "api-key").write_bytes(b"sk")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").write_bytes(b"x")
    found = read_secrets(tmp_path)
    assert found.values == {"clients": {"app": b"one\n", "web": b"two"}, "openai": {"api-key": b"sk"}}
    assert found.problems == ()


def test_all_secrets_may_stand_in_one_projected_volume(tmp_path: Path) -> None:
    project(tmp_path, {})
    for version in (b"1", b"2"):
        folder = tmp_path / f"..version-{version.decode()}"
        (folder / "clients").mkdir(parents=True)
        (folder / "clients" / "app").write_bytes(version)
        (tmp_path / "..data_tmp").symlink_to(folder.name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        if version == b"1":
            (tmp_path / "clients").symlink_to("..data/clients")
        assert read_secrets(tmp_path).values == {"clients": {"app": version}}


def test_a_directory_that_is_not_there_holds_no_secrets(tmp_path: Path) -> None:
    assert read_secrets(tmp_path / "nowhere").values == {}


def test_an_entry_that_cannot_be_taken_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    project(tmp_path / "clients", {"app": b"one"})
    (tmp_path / "clients" / "..data" / "large").write_bytes(b" " * (secrets_module.ENTRY_MAX_BYTES + 1))
    found = read_secrets(tmp_path)
    assert found.values == {"clients": {"app": b"one"}}
    assert found.problems == (f"Secret clients/large is larger than {secrets_module.ENTRY_MAX_BYTES} bytes",)
    assert not found.in_trouble


def test_a_folder_named_by_mistake_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets_module, "TOTAL_MAX_BYTES", 10)
    for name in ("a", "b", "c"):
        project(tmp_path / name, {"entry": b"12345"})
    found = read_secrets(tmp_path)
    assert sorted(found.values) == ["a", "b"]
    (problem,) = found.problems
    assert problem == "Secret c is not taken: all Secrets there have more than 10 bytes"


def test_manifests_hold_base64_and_plain_texts() -> None:
    manifest = {"data": {"a": "b25l", "b": "b25l"}, "stringData": {"b": "two"}}
    assert secret_values(manifest) == {"a": b"one", "b": b"two"}


@pytest.mark.parametrize("value", ["hush%", "hüsh", "hus"])
def test_what_is_not_base64_is_told_without_its_value(value: str) -> None:
    with pytest.raises(ValueError, match=r"data.app is not base64; use stringData") as refused:
        secret_values({"data": {"app": value}})
    assert value not in str(refused.value)


def test_values_are_not_shown() -> None:
    assert "hush" not in repr(SecretValues({"s": {"app": b"hush"}}))
