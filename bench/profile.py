"""Where the gateway's time goes: py-spy on it under load, after the rounds and apart from their numbers."""

import subprocess
from collections import Counter
from pathlib import Path

from bench import load, machine
from bench.contenders import Contender
from bench.provision import say
from bench.rounds import CHUNKS, serving, standing_in

_SECONDS = 6
_TOP = 25
_WAITING = ("_worker (concurrent/futures/thread.py)",)
"""A thread that waits for work, which py-spy takes for a busy one."""


def profile(contender: Contender, environment: Path | None, cores: machine.Cores, out: Path) -> None:
    """Writes profile-<kind>.txt (collapsed stacks, for any flame graph), prints the functions with most own time."""
    program = environment / "bin" / "py-spy" if environment else None
    if program is None or not program.is_file():
        say("NO PROFILE: py-spy is not installed (requirements/bench.txt)")
        return
    with standing_in(cores) as upstream, serving(contender.prepare, contender.name, upstream, cores) as served:
        for kind, body in (("plain", load.PLAIN), ("streams", load.streaming(CHUNKS))):
            file = out / f"profile-{kind}.txt"
            record = ["record", "--pid", str(served.child.pid), "--duration", str(_SECONDS - 2), "--rate", "250"]
            spy = subprocess.Popen(
                [str(program), *record, "--format", "raw", "--output", str(file)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                load.wrk(served.endpoint, contender.effort.connections, _SECONDS, body)
                _, errors = spy.communicate(timeout=30)
            finally:
                if spy.poll() is None:
                    spy.kill()
            if spy.returncode != 0:
                say(f"NO PROFILE: py-spy: {errors.strip()[-200:]}")
                return
            print(f"\n### {contender.name}, {kind}: time of a function's own ({file})\n")
            print(_own_time(file.read_text()))


def _own_time(stacks: str) -> str:
    own: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        function = stack.rpartition(";")[2].rpartition(":")[0] + ")"  # all lines of it together
        if function not in _WAITING:
            own[function] += int(count)
    total = max(own.total(), 1)
    return "\n".join(f"{count / total:6.1%}  {function}" for function, count in own.most_common(_TOP))
