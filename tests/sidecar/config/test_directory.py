"""A mounted ConfigMap and mounted Secrets, in kubelet's layout: what is read, and that a swap is seen."""

from pathlib import Path

import pytest

from llmroute_sidecar.config import directory as directory_module
from llmroute_sidecar.config.directory import DirectorySource
from llmroute_sidecar.config.source import SourceError
from tests.cluster.projection import project
from tests.sidecar.config.mounted import clear, compiled, write


def test_a_swap_is_seen_and_read_whole(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path / "config", tmp_path / "secrets")
    project(tmp_path / "config", compiled(a=1))
    before = source.fingerprint()
    assert source.fingerprint() == before
    assert source.read().files == compiled(a=1)
    project(tmp_path / "config", compiled(a=2))
    assert source.fingerprint() != before
    assert source.read().files == compiled(a=2)


def test_a_secret_that_comes_rotates_or_goes_is_seen(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path / "config", tmp_path / "secrets")
    project(tmp_path / "config", compiled(a=1))
    seen = source.fingerprint()
    assert source.read().secrets.entries("clients") is None
    (tmp_path / "secrets").mkdir()
    history: list[dict[str, bytes]] = [{}, {"app": b"one"}, {"app": b"two"}, {"web": b"two"}, {}]
    for entries in history:
        project(tmp_path / "secrets" / "clients", entries)
        assert source.fingerprint() != seen
        seen = source.fingerprint()
        assert source.read().secrets.entries("clients") == (entries or None)


def test_other_files_and_kubelets_own_entries_are_no_configuration(tmp_path: Path) -> None:
    project(tmp_path / "config", compiled(a=1))
    (tmp_path / "config" / ".hidden.json").write_text("{")
    source = DirectorySource(tmp_path / "config", tmp_path / "secrets")
    assert set(source.read().files) == {"gateway.json", "route.a.json"}


@pytest.mark.parametrize("layout", [project, write])
def test_an_empty_directory_is_nothing_yet(tmp_path: Path, layout: object) -> None:
    (project if layout is project else write)(tmp_path / "config", {})
    with pytest.raises(SourceError, match="holds no configuration"):
        DirectorySource(tmp_path / "config", tmp_path / "secrets").read()


def test_a_directory_that_is_not_there_is_told_and_seen_when_it_comes(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path / "config", tmp_path / "secrets")
    before = source.fingerprint()
    with pytest.raises(SourceError, match="there is no directory"):
        source.read()
    write(tmp_path / "config", compiled(a=1))
    assert source.fingerprint() != before
    there = source.fingerprint()
    clear(tmp_path / "config")
    assert source.fingerprint() != there


def test_a_file_above_the_bound_is_not_read(tmp_path: Path) -> None:
    files = {**compiled(a=1), "route.b.json": b" " * (directory_module.FILE_MAX_BYTES + 1)}
    write(tmp_path / "config", files)
    assert "route.b.json" not in DirectorySource(tmp_path / "config", tmp_path / "secrets").read().files
