"""Reading small files from places that others write to: bounded, never blocking, and telling cheaply that they changed.

A fingerprint is taken before the files are read, so that what is written during the read changes the next one.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path

SETTLING_NANOSECONDS = 2_000_000_000
"""File times move in steps (4 ms on Linux, up to 2 s elsewhere): a file that is written twice within one step looks the
same after the second write. So what changed this recently is read to know it, whatever its times say."""


class Unusable(Exception):
    """A file that is there but cannot be taken; the message says why and quotes no content."""


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a regular file. Raises FileNotFoundError where there is none, Unusable for anything else."""
    try:
        # O_NONBLOCK: a FIFO put in the place of a file must not hold the reader up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as opened:
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unusable("is not a regular file")
            data = opened.read(limit_bytes + 1)
        except OSError as error:
            raise Unusable(f"cannot be read: {error.strerror}") from None
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
        raise Unusable(f"cannot be read: {error.strerror}") from None


def secrets_paths(directory: Path) -> Iterator[Path]:
    """What a fingerprint of mounted Secrets (`<directory>/<secret>/<entry>`) has to look at."""
    yield directory
    for secret in _visible(directory):
        yield secret
        yield from _visible(secret)


def _visible(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in names_in(directory) if not name.startswith(".")]
    except (FileNotFoundError, Unusable):
        return []


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
            return (marks, str(error))
