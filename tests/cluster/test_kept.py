"""What runs keep for one another below the cache: whole or not there, whenever one of them is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.go_build import go_build
from tests.waiting import wait_until

KILLED_WHILE_IT_WAITS = """
import subprocess
from tests.children import with_us
child = subprocess.Popen(with_us(["sleep", "600"]))
print(child.pid, flush=True)
child.wait()
"""


def test_what_a_killed_run_had_started_ends_with_it() -> None:
    run = subprocess.Popen([sys.executable, "-c", KILLED_WHILE_IT_WAITS], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    child = int(run.stdout.readline())
    # Not what asks the kernel in its place before: that has `sleep` among its arguments.
    wait_until(lambda: Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sleep"), "the program to run")
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    wait_until(lambda: _is_gone(child), "the program to end")


def _is_gone(process: int) -> bool:
    """Or a zombie, where nobody asks for its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_half_a_build_is_no_part_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/false")  # any; nothing is built
    left = tmp_path / "build" / "kubernetes-module" / "go.sum"
    left.parent.mkdir(parents=True)
    left.write_text("k8s.io/api v0.3")
    with go_build(tmp_path, "") as build:
        assert not left.exists()
        assert list(build.work("kubernetes-module").iterdir()) == []


def test_a_copy_that_is_kept_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/false")
    document = tmp_path / "module" / "crd.yaml"
    document.parent.mkdir()
    document.write_text("kind: CustomResourceDefinition\n")
    folder = tmp_path / "kept"
    folder.mkdir()

    def half(source: Path, target: Path) -> None:
        target.write_text(source.read_text()[:5])
        raise KeyboardInterrupt

    def keep() -> None:
        with go_build(folder, "") as build:
            build.keep(document)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(shutil, "copyfile", half)
        with pytest.raises(KeyboardInterrupt):
            keep()
    assert not (folder / "crd.yaml").exists()
    keep()
    assert (folder / "crd.yaml").read_text() == document.read_text()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images.folder().mkdir(parents=True)
    return images.folder()


def test_an_image_that_another_run_has_forgotten_is_not_there(cache: Path) -> None:
    archive = cache / "gateway-0123456789abcdef.tar"
    assert not images._used(archive)
    assert not archive.exists()


def test_old_images_are_forgotten_but_none_that_is_in_use(cache: Path) -> None:
    now = time.time()
    made = {f"gateway-{number:016x}.tar": now - 60 * number for number in range(images.KEPT + 2)}
    made |= {f"gateway-{number:016x}.tar": now - images.IN_USE_SECONDS - number for number in range(90, 95)}
    others = {f"gateway-litellm-{number:016x}.tar": now - 1e6 - number for number in range(images.KEPT)}
    for name, when in {**made, **others}.items():
        (cache / name).write_bytes(b"an archive")
        os.utime(cache / name, (when, when))
    images._forget_earlier("gateway")
    left = {name for name, when in made.items() if when > now - images.IN_USE_SECONDS}
    assert {path.name for path in cache.iterdir()} == left | set(others)
