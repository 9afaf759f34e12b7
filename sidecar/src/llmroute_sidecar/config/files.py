"""Reading small files from places that others write to: bounded, never blocking, and telling cheaply that they changed.

A fingerprint is taken before the files are read, so that what is written during the read changes the next one.
"""

import os
import stat
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

SETTLING_NANOSECONDS = 2_000_000_000
"""File times move in steps (4 ms on Linux, up to 2 s elsewhere): a file that is written twice within one step looks the
same after the second write. So what changed this recently is not trusted to be told apart yet, and is read again."""

DATA_LINK = "..data"
"""kubelet's symlink to the directory that holds the volume's present content; swapped as a whole, never edited."""


SWAPS_DURING_READ = 5
"""How often a read starts anew because kubelet swapped the content under it. kubelet swaps about once a minute."""


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


def data_link(directory: Path) -> str | None:
    """Where kubelet's `..data` of this directory leads, as it is written there; None where there is no such link."""
    try:
        return str((directory / DATA_LINK).readlink())
    except OSError:
        return None


def link_fingerprint(directory: Path) -> Hashable | None:
    """Which content kubelet's `..data` shows, and whether it is there; None where there is no such link."""
    link = data_link(directory)
    if link is None:
        return None
    try:
        return (link, (directory / link).stat().st_ino)
    except OSError as error:
        return (link, -(error.errno or 1))


def fingerprint_of(paths: Iterable[Path], now_ns: Callable[[], int]) -> Hashable:
    """What tells one state of these files from another: what each path resolves to, its inode, mode, size and times.

    A symlink's own times never move when its target is swapped, so links are followed (FIELD: kars#450, zot#4384).
    ctime is looked at too: `cp -p` and `rsync -t` bring old mtimes along.
    """
    found: list[Hashable] = []
    newest = 0
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            found.append((str(path), error.errno))
            continue
        times = (status.st_mtime_ns, status.st_ctime_ns)
        newest = max(newest, *times)
        found.append((str(path), status.st_dev, status.st_ino, status.st_mode, status.st_size, times))
    now = now_ns()
    unsettled = now if abs(now - newest) < SETTLING_NANOSECONDS else None
    return (tuple(found), unsettled)
