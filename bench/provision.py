"""Gets what contenders need of PyPI, in a virtual environment of its own. Debian's packages are `tools/debian.py`'s.

Says aloud what it installs. What cannot be had is left out of the run with one line, never an error.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements" / "bench.txt"
CACHE = Path.home() / ".cache" / "llmroute-bench"
_INSTALL_SECONDS = 300


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def environment() -> Path | None:
    """The virtual environment with everything in requirements/bench.txt, made where there is none for this lock."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / digest
    if (folder / ".ready").exists():
        return folder
    uv = Path(sys.executable).parent / "uv"
    say(f"installing {LOCK.name} (Envoy, py-spy) by hash into {folder}")
    commands = [
        [str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [str(uv), "pip", "install", "--quiet", "--python", str(folder), "--require-hashes", "-r", str(LOCK)],
    ]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"COULD NOT INSTALL {LOCK.name}: {error}")
            return None
        if done.returncode != 0:
            say(f"COULD NOT INSTALL {LOCK.name}: {' '.join(done.stderr.split())[-400:]}")
            return None
    (folder / ".ready").touch()
    return folder
