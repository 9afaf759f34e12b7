"""Programs that end with the test run that started them, also where it is killed.

Owns only that; when a program is told to end before is the matter of whoever starts it.
"""

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path


def with_us(command: Sequence[str | Path]) -> list[str]:
    """The same command, in the same process: before it begins, the kernel is told to kill it when its parent is gone
    (setpriv(1), util-linux; elsewhere it goes on). Not by `preexec_fn`: tests run threads. The parent is the thread
    that starts it: one that ends earlier takes it along (prctl(2), PR_SET_PDEATHSIG)."""
    return [*_asking(), *(str(part) for part in command)]


@functools.cache
def _asking() -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
