"""Configuration from a directory of compiled files: a mounted ConfigMap, or what `llmroute compile -o` wrote.

kubelet swaps a whole set of files at once by renaming the symlink `..data` (its AtomicWriter); all files of one
reading are taken from the folder that the link named at the beginning, so a swap in between mixes nothing. A
symlink's own times never move, and gateways that looked at them went on with an old policy (stunner's issue 77): the
fingerprint follows the link, and outside Kubernetes is each file's inode, size and mtime.
"""

import os
from collections.abc import Hashable
from pathlib import Path

from llmroute_contract.compiled import GATEWAY_FILE
from llmroute_sidecar.config.secrets import DirectorySecrets
from llmroute_sidecar.config.source import NothingYet, Reading, SourceError

FILE_MAX_BYTES = 1024 * 1024
FILES_MAX = 2000


class DirectorySource:
    """Compiled files in `config_dir`, secrets below `secrets_dir`."""

    def __init__(self, config_dir: Path, secrets_dir: Path) -> None:
        self._config_dir = config_dir
        self._secrets_dir = secrets_dir

    def fingerprint(self) -> Hashable:
        return (_fingerprint(self._config_dir), _secrets_fingerprint(self._secrets_dir))

    def read(self) -> Reading:
        folder = _current(self._config_dir)
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith("."))  # noqa: PTH208
        except OSError as error:
            raise SourceError(f"{self._config_dir} cannot be read: {error.strerror}") from None
        if not names:
            raise NothingYet(f"{self._config_dir} holds no configuration")
        if GATEWAY_FILE not in names:
            raise SourceError(f"{self._config_dir} has no {GATEWAY_FILE}")
        files = {name: _read(folder / name) for name in names[:FILES_MAX]}
        return Reading(
            {name: data for name, data in files.items() if data is not None}, DirectorySecrets(self._secrets_dir)
        )


def _current(folder: Path) -> Path:
    """The folder that kubelet's `..data` names now, or `folder` itself where it is no projected volume."""
    try:
        return folder / os.readlink(folder / "..data")  # noqa: PTH115
    except OSError:
        return folder


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError:
        return None
    return data if len(data) <= FILE_MAX_BYTES else None


def _fingerprint(folder: Path) -> Hashable:
    current = _current(folder)
    marks: list[Hashable] = [str(current)]
    try:
        with os.scandir(current) as entries:
            for entry in entries:
                stat = entry.stat()
                marks.append((entry.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        marks.append(error.errno)
    return tuple(sorted(marks, key=repr))


def _secrets_fingerprint(folder: Path) -> Hashable:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError:
        return None
    return tuple((name, _fingerprint(folder / name)) for name in names)
