"""`python -m bench`: arguments, who takes part, and what is printed."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from bench import __doc__ as about
from bench import load, machine, profile, provision, report, rounds
from bench.contenders import Absent, Contender
from bench.contenders.envoy import Envoy
from bench.contenders.llmroute import Llmroute
from bench.contenders.nginx import Nginx
from bench.provision import say
from tools import debian

NAMES = ("nginx", "envoy", "llmroute")


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _leave)
    try:
        cores = machine.choose_cores()
    except machine.TooFewCores as error:
        say(str(error))
        return 1
    wanted = arguments.only or list(NAMES)
    debian.install({"wrk": "wrk"} | ({"nginx": "nginx-light"} if "nginx" in wanted else {}), "bench")
    if debian.find("wrk") is None:
        say("nothing can be measured without wrk")
        return 1
    environment = provision.environment() if "envoy" in wanted or arguments.profile else None
    known: dict[str, Contender] = {
        "nginx": Nginx(),
        "envoy": Envoy(environment),
        "llmroute": Llmroute(arguments.gateway),
    }
    versions: dict[str, str] = {}
    for name in wanted:
        try:
            versions[name] = known[name].version()
        except Absent as error:
            say(f"{name} IS LEFT OUT: {error}")
    contenders = [known[name] for name in versions]

    machine.raise_file_limit()
    facts = (
        machine.describe()
        | load.program_version()
        | {"contender's core": str(cores.contender), "rig's core": str(cores.rig)}
    )
    busy_before = machine.busy_share(cores)
    os.sched_setaffinity(0, {cores.rig})  # wrk and the stand-in inherit it
    plan = rounds.QUICK if arguments.quick else rounds.FULL
    began = time.monotonic()
    visits = rounds.run(contenders, plan, cores)
    took = time.monotonic() - began

    told = report.caveats(visits, busy_before)
    found = report.medians(visits)
    print(f"# Benchmark: medians of {len({visit.round for visit in visits})} rounds, {took:.0f} s\n")
    print(", ".join(f"{key} {value}" for key, value in facts.items()) + "\n")
    for name, version in versions.items():
        print(f"- {name} {version}: {known[name].setup}")
    print("\n" + report.table(found, plan) + "\n")
    if report.OURS in found:
        print("Bars (for the reader; nothing fails on them):\n" + report.bars(found) + "\n")
    for line in told:
        print(f"CAVEAT: {line}")
    say(f"all samples: {report.write(arguments.out, visits, facts, versions, told)}")
    if arguments.profile and report.OURS in found:
        profile.profile(known[report.OURS], environment, cores, arguments.out)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: below 90 s in all")
    parser.add_argument("--only", action="append", choices=NAMES, help="just this contender (may be given again)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="where bench.json goes")
    program = Path(sys.executable).parent / "llmroute"
    parser.add_argument("--gateway", type=Path, default=program, help="the llmroute to measure (%(default)s)")
    parser.add_argument("--profile", action="store_true", help="afterwards, py-spy on the gateway under load")
    return parser.parse_args()


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # so that every process that was started is ended on the way out


if __name__ == "__main__":
    sys.exit(main())
