"""`python -m bench`: arguments, who takes part, and what is printed."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from bench import __doc__ as about
from bench import load, machine, measures, profile, provision, report, rounds
from bench.contenders import OURS, Absent, Contender, Effort
from bench.contenders.envoy import Envoy
from bench.contenders.litellm import LiteLlm
from bench.contenders.llmroute import Llmroute
from bench.contenders.nginx import Nginx
from bench.contenders.portkey import Portkey
from bench.provision import say
from tools import debian

NAMES = ("nginx", "envoy", "portkey", "litellm", OURS)


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _leave)
    try:
        cores = machine.choose_cores()
    except machine.TooFewCores as error:
        say(str(error))
        return 1
    usual = ("nginx", "envoy", OURS) if arguments.requests else NAMES
    wanted = [name for name in NAMES if name in (arguments.only or usual)]
    debian.install({"wrk": "wrk"} | ({"nginx": "nginx-light"} if "nginx" in wanted else {}), "bench")
    if debian.find("wrk") is None:
        say("nothing can be measured without wrk")
        return 1
    made: dict[str, Callable[[], Contender]] = {
        "nginx": Nginx,
        "envoy": lambda: Envoy(provision.tools()),
        "portkey": lambda: Portkey(provision.portkey()),
        "litellm": lambda: LiteLlm(provision.litellm()),
        OURS: lambda: Llmroute(arguments.gateway or gateway_program()),
    }
    contenders: list[Contender] = []
    versions: dict[str, str] = {}
    for name in wanted:
        contender = made[name]()
        try:
            versions[name] = contender.version()
            contenders.append(contender)
        except Absent as error:
            say(f"{name} IS LEFT OUT: {error}")

    machine.raise_file_limit()
    facts = (
        machine.describe()
        | load.program_version()
        | {"contender's core": str(cores.contender), "rig's core": str(cores.rig)}
    )
    busy_before = machine.busy_share(cores)
    os.sched_setaffinity(0, {cores.rig})  # wrk and the stand-in inherit it
    sys.setswitchinterval(0.0005)  # or the thread that changes configuration would hold up the prober
    plan = rounds.REQUESTS if arguments.requests else rounds.QUICK if arguments.quick else rounds.FULL
    began = time.monotonic()
    visits = rounds.run(contenders, plan, cores)
    took = time.monotonic() - began

    efforts = {one.name: text for one in contenders if (text := _less(one, plan))}
    caveats = report.caveats(visits, busy_before, efforts)
    found = measures.medians(visits)
    told = {one.name: f"{versions[one.name]}: {one.setup}" for one in contenders}
    rounds_done = len({visit.round for visit in visits})
    text = report.section(found, plan, facts, told, caveats, rounds_done)
    print(f"# Benchmark, {took:.0f} s\n\n{text}\n")
    if arguments.markdown:
        report.put_between_marks(arguments.markdown, text)
        say(f"written into {arguments.markdown}")
    say(f"all samples: {report.write(arguments.out, visits, facts, versions, caveats)}")
    if arguments.profile and OURS in found:
        ours = next(one for one in contenders if one.name == OURS)
        profile.profile(ours, provision.tools(), cores, arguments.out)
    return 0


def gateway_program() -> Path:
    """In the environment that is like the image's; where it cannot be made, in the one that measures."""
    environment = provision.gateway()
    if environment is None:
        say("llmroute IS MEASURED in the development environment, on its Python")
    return (environment / "bin" if environment else Path(sys.executable).parent) / "llmroute"


def _less(contender: Contender, plan: rounds.Plan) -> str:
    """What it was asked less of than the rest, for the reader."""
    effort, usual = contender.effort, Effort()
    said = []
    if effort.slow:
        said.append(f"{plan.slow_rounds} of {plan.rounds} rounds, of {plan.slow_load_seconds:g} s a load")
    if effort.connections != usual.connections:
        said.append(f"{effort.connections} connections, not {usual.connections}")
    if effort.streams != usual.streams:
        said.append(f"{effort.streams} streams at full speed, not {usual.streams}")
    if effort.paced_streams is not None and effort.paced_streams < plan.pace.streams:
        said.append(
            f"{effort.paced_streams} paced streams, not {plan.pace.streams:,}: it cannot carry more at that pace"
        )
    return "; ".join(said)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: below 150 s in all")
    parser.add_argument(
        "--requests", action="store_true", help="requests/s alone, of nginx, envoy and llmroute: 1 minute"
    )
    parser.add_argument("--only", action="append", choices=NAMES, help="just this contender (may be given again)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="where bench.json goes")
    parser.add_argument("--markdown", type=Path, help="a page that gets the report between its two marks, too")
    parser.add_argument("--gateway", type=Path, help="the llmroute to measure (default: one on Debian's Python)")
    parser.add_argument("--profile", action="store_true", help="afterwards, py-spy on the gateway under load")
    return parser.parse_args()


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # so that every process that was started is ended on the way out


if __name__ == "__main__":
    sys.exit(main())
