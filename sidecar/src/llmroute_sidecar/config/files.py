"""Reading small files from places that others write to: bounded, never blocking, and telling cheaply that they changed.

Owns every read of `config/`, what a kubelet volume is, and fingerprints; what the bytes mean is the sources' to say. A
fingerprint is taken before the files are read, so that what is written during the read changes the next one.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

FILES_MAX = 10_000
"""In one directory. Nobody means more; a folder that was named by mistake may hold a million."""

SETTLING_NANOSECONDS = 2_000_000_000
"""File times move in steps (4 ms on Linux, up to 2 s elsewhere): a file that is written twice within one step looks the
same after the second write. So what changed this recently is read to know it, whatever its times say."""

SWAPS_MAX = 10
"""Of a volume during one reading. kubelet swaps once in a minute or so."""


class Unusable(Exception):
    """A file that is there but cannot be taken; the message says why and quotes no content."""


class InTrouble(Unusable):
    """The system refused to read it, which may pass while the file stays as it is: no descriptor was left, a disk
    failed, access was forbidden.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot be read: {error.strerror or type(error).__name__}")


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a regular file. Raises FileNotFoundError where there is none, Unusable for anything else."""
    try:
        # O_NONBLOCK: a FIFO put in the place of a file must not hold the reader up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise InTrouble(error) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unusable("is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            data = opened.read(limit_bytes + 1)
    except OSError as error:
        raise InTrouble(error) from None
    finally:
        os.close(descriptor)
    if len(data) > limit_bytes:
        raise Unusable(f"is larger than {limit_bytes} bytes")
    return data


def names_in(directory: Path) -> list[str]:
    """Sorted names in a directory. Raises FileNotFoundError where there is none, Unusable where it cannot be listed."""
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(directory) from None
    except OSError as error:
        raise InTrouble(error) from None


def visible_in(directory: Path) -> list[Path]:
    """What a fingerprint of a directory has to look at: its entries, without hidden ones (kubelet's own `..data` is
    one). Empty where it cannot be listed: never raises.
    """
    try:
        return [directory / name for name in names_in(directory) if not name.startswith(".")][:FILES_MAX]
    except (FileNotFoundError, Unusable):
        return []


@dataclass(frozen=True, slots=True)
class Together:
    """Files of one directory as they stood at one moment. `unusable`: those that are there but cannot be taken."""

    files: Mapping[str, bytes]
    unusable: Mapping[str, Unusable]


def read_together(directory: Path, wanted: Callable[[str], bool], limit_bytes: int) -> Together:
    """The files whose names are `wanted` and not hidden. Raises FileNotFoundError or Unusable, of the directory."""
    return while_it_stands(directory, lambda folder: _read_all(folder, wanted, limit_bytes))


def while_it_stands(directory: Path, read: Callable[[Path], T]) -> T:
    """What `read` gives of a directory that kubelet may swap meanwhile. Raises as `read` does, and Unusable.

    kubelet swaps a whole set of files at once by renaming the symlink `..data`, then removes the old ones. So all are
    read from the folder that the link names, and anew where it moved meanwhile: a certificate never meets the key of
    another rotation, and a file that was swapped away does not look lost.
    """
    for _ in range(SWAPS_MAX):
        link = volume_link(directory)
        try:
            found = read(directory / link if link else directory)
        except FileNotFoundError:
            if volume_link(directory) == link:
                raise FileNotFoundError(directory) from None
        else:
            if volume_link(directory) == link:
                return found
    raise Unusable("is being swapped faster than it can be read")


def volume_link(directory: Path) -> str | None:
    """Where kubelet's `..data` points now; None where `directory` is no projected volume. Never raises."""
    try:
        return os.readlink(directory / "..data")  # noqa: PTH115 - a name, not yet a path
    except OSError:
        return None


def _read_all(folder: Path, wanted: Callable[[str], bool], limit_bytes: int) -> Together:
    files: dict[str, bytes] = {}
    unusable: dict[str, Unusable] = {}
    names = [name for name in names_in(folder) if wanted(name) and not name.startswith(".")]
    for name in names[:FILES_MAX]:
        try:
            files[name] = read_bounded(folder / name, limit_bytes)
        except FileNotFoundError:
            continue  # removed since it was listed
        except Unusable as error:
            unusable[name] = error
    return Together(files, unusable)


class Contents:
    """Fingerprints files by what is in them, and reads only those whose inode, size or times moved, or moved just now.

    Links are followed: a symlink's own times never move when its target is swapped (zot#4384). ctime is looked at
    beside mtime: `cp -p` and `rsync -t` bring old mtimes along.
    """

    def __init__(self, limit_bytes: int, now_ns: Callable[[], int]) -> None:
        self._limit_bytes = limit_bytes
        self._now_ns = now_ns
        self._known: dict[Path, tuple[Hashable, Hashable]] = {}

    def fingerprint(self, paths: Iterable[Path]) -> Hashable:
        """Never raises. A file that is not there, or cannot be read, has a fingerprint too."""
        before, self._known = self._known, {}
        for path in paths:
            self._known[path] = self._look(path, before.get(path))
        return tuple((str(path), digest) for path, (_, digest) in self._known.items())

    def _look(self, path: Path, before: tuple[Hashable, Hashable] | None) -> tuple[Hashable, Hashable]:
        try:
            status = path.stat()
        except OSError as error:
            return (None, error.errno)
        newest = max(status.st_mtime_ns, status.st_ctime_ns)
        marks = (status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if before is not None and before[0] == marks and abs(self._now_ns() - newest) > SETTLING_NANOSECONDS:
            return before
        if stat.S_ISDIR(status.st_mode):
            return (marks, "directory")  # its files are looked at themselves
        try:
            return (marks, hashlib.sha256(read_bounded(path, self._limit_bytes)).digest())
        except (FileNotFoundError, Unusable) as error:
            return (None, str(error))  # without marks it is looked at again: the cause may pass
