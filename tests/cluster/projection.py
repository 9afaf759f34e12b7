"""Projects ConfigMaps and Secrets of the control plane into folders, as kubelet's volumes do, for tests without a node.

Owns the look of such a volume (kubelet's AtomicWriter: a folder for each version, one symlink `..data` renamed from
one to the next) and following an object. When kubelet would look is not copied: it takes up to a minute and a half
(shared notes measured it), here it is as soon as the object has changed.
"""

import base64
import contextlib
import itertools
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.control_plane import ControlPlane

_versions = itertools.count(1)
_LOOK_SECONDS = 0.1


def project(volume: Path, files: Mapping[str, bytes]) -> None:
    """As AtomicWriter: a new folder, the link `..data` renamed onto it, visible links, the old folder gone."""
    volume.mkdir(parents=True, exist_ok=True)
    data = volume / "..data"
    old = volume / data.readlink() if data.is_symlink() else None
    folder = volume / f"..2026_11_25_{next(_versions)}"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (volume / "..data_tmp").symlink_to(folder.name)
    (volume / "..data_tmp").rename(data)
    for name in files:
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    for visible in volume.iterdir():
        if not visible.name.startswith("..") and visible.name not in files:
            visible.unlink()
    if old is not None:
        shutil.rmtree(old)


@contextmanager
def projected(control_plane: ControlPlane, namespace: str, volumes: Mapping[str, Path]) -> Iterator[None]:
    """Keeps each volume as its object is; `volumes` maps `configmap/NAME` or `secret/NAME` to folders.

    All are optional, as the injector mounts them: an object that is not there is an empty folder.
    """
    stop = threading.Event()
    follower = threading.Thread(target=_follow, args=(control_plane, namespace, volumes, stop), daemon=True)
    follower.start()
    try:
        yield
    finally:
        stop.set()
        follower.join(30)


def _follow(control_plane: ControlPlane, namespace: str, volumes: Mapping[str, Path], stop: threading.Event) -> None:
    seen: dict[str, Mapping[str, bytes]] = {}
    while not stop.is_set():
        for reference, volume in volumes.items():
            with contextlib.suppress(ConnectionError):
                files = _files(control_plane, namespace, reference)
                if seen.get(reference) != files:
                    project(volume, files)
                    seen[reference] = files
        stop.wait(_LOOK_SECONDS)


def _files(control_plane: ControlPlane, namespace: str, reference: str) -> Mapping[str, bytes]:
    """Raises ConnectionError where the API server does not say."""
    kind, _, name = reference.partition("/")
    found = control_plane.read(f"/api/v1/namespaces/{namespace}/{kind}s/{name}")
    data: Mapping[str, str] = (found or {}).get("data") or {}
    if kind == "secret":
        return {key: base64.b64decode(value) for key, value in data.items()}
    return {key: value.encode() for key, value in data.items()}
