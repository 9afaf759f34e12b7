"""Reading what others write to: bounds, things that are no files, volumes that are swapped, and cheap fingerprints."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmroute_sidecar.config import files
from llmroute_sidecar.config.files import Contents, Unusable, names_in, read_bounded, read_together, visible_in
from tests.cluster.projection import project


def every(_: str) -> bool:
    return True


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(Unusable, match="larger than 4 bytes"):
        read_bounded(tmp_path / "a", 4)


def make_socket_like(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [Path.mkdir, make_socket_like, make_loop])
def test_what_is_no_regular_file_is_unusable_and_never_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a")
    with pytest.raises(Unusable):
        read_bounded(tmp_path / "a", 100)


@pytest.mark.parametrize("path", ["missing", "file/below", "dangling"])
def test_what_is_not_there_is_told_apart(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / path, 100)
    with pytest.raises(FileNotFoundError):
        names_in(tmp_path / path)
    assert visible_in(tmp_path / path) == []


def test_files_are_read_together_from_the_folder_that_the_volume_names(tmp_path: Path) -> None:
    project(tmp_path, {"tls.crt": b"1", "tls.key": b"1"})
    (tmp_path / ".hidden").touch()
    found = read_together(tmp_path, every, 100)
    assert (found.files, found.unusable) == ({"tls.crt": b"1", "tls.key": b"1"}, {})


@pytest.mark.parametrize("swap_before_read", range(3))
def test_a_swap_during_the_reading_mixes_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap_before_read: int
) -> None:
    versions = [{"tls.crt": data, "tls.key": data} for data in (b"1", b"2")]
    project(tmp_path, versions[0])
    reads = 0

    def read_while_kubelet_swaps(path: Path, limit_bytes: int) -> bytes:
        nonlocal reads
        if reads == swap_before_read:
            project(tmp_path, versions[1])
        reads += 1
        return read_bounded(path, limit_bytes)

    monkeypatch.setattr(files, "read_bounded", read_while_kubelet_swaps)
    found = read_together(tmp_path, every, 100)
    assert found.files in versions
    assert found.unusable == {}


def test_a_volume_that_never_comes_to_rest_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, {"a": b"1"})

    def read_and_swap(path: Path, limit_bytes: int) -> bytes:
        data = read_bounded(path, limit_bytes)
        project(tmp_path, {"a": b"1"})
        return data

    monkeypatch.setattr(files, "read_bounded", read_and_swap)
    with pytest.raises(Unusable, match="faster than it can be read"):
        read_together(tmp_path, every, 100)


def test_one_unusable_file_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"12345")
    (tmp_path / "c").mkdir()
    found = read_together(tmp_path, every, 4)
    assert found.files == {"a": b"1"}
    told = {name: str(error) for name, error in found.unusable.items()}
    assert told == {"b": "is larger than 4 bytes", "c": "is not a regular file"}


def test_a_fingerprint_follows_links_and_content_and_not_times(tmp_path: Path) -> None:
    contents = Contents(100, lambda: 1 << 62)
    (tmp_path / "one").write_text("same")
    (tmp_path / "two").write_text("same")
    (tmp_path / "three").write_text("else")
    link = tmp_path / "link"
    link.symlink_to("one")
    before = contents.fingerprint([link])
    for target, same in (("two", True), ("three", False)):
        link.unlink()
        link.symlink_to(target)
        assert (contents.fingerprint([link]) == before) is same


def test_a_write_that_leaves_size_and_times_is_seen_while_times_may_not_have_moved(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("one")
    stamp = file.stat()
    contents = Contents(100, lambda: stamp.st_ctime_ns)
    before = contents.fingerprint([file])
    file.write_text("two")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert contents.fingerprint([file]) != before


def test_a_file_that_could_not_be_read_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("one")
    contents = Contents(100, lambda: 1 << 62)

    def no_descriptors(path: Path, limit_bytes: int) -> bytes:
        raise Unusable("cannot be read: Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(files, "read_bounded", no_descriptors)
        in_trouble = contents.fingerprint([tmp_path / "a"])
    assert contents.fingerprint([tmp_path / "a"]) != in_trouble
