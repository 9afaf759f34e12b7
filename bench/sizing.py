"""`python -m bench.sizing`: what one gateway process carries on one core, and what its callers spend on the same.

From this docs/sizing.md shows what a pod would have to do to need a second core for its gateway. As in `bench`, the
gateway has all of its policy on and a core to itself; stand-in and clients share another. What is measured:

- requests/s at 32 connections, and the gateway's CPU time for one;
- 1,000 streams at once, at several paces: how busy its core is, how late a chunk is (beside it what the rig alone adds:
  where that is much, the rig was at its end), its CPU time for a chunk, its memory;
- what the `openai` SDK spends of its own process's CPU on the same requests and chunks, straight from the stand-in: a
  pod cannot ask its gateway for more than its application can read.

Figures are medians over rounds; they hold for this machine, and the ratios for most.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bench import load, machine, process, report, rounds, streams
from bench.__main__ import gateway_program
from bench.contenders import CLIENT_KEY, MODEL
from bench.contenders.llmroute import Llmroute
from bench.load import Endpoint
from bench.provision import say
from tools import debian

GAPS_MS = (100, 50, 33, 25)
STREAMS = 1000
STREAM_SECONDS = 4.0
RAMP_SECONDS = 2.0
_MIB = 1024 * 1024
_BUSY = 0.05

_SDK = """
import resource, sys, time
import openai

port, key, model, requests, chunks = sys.argv[1:]
client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key)
said = [{"role": "user", "content": "hello"}]

def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

client.chat.completions.create(model=model, messages=said)
before = spent()
for _ in range(int(requests)):
    client.chat.completions.create(model=model, messages=said)
plain = (spent() - before) / int(requests)
before = spent()
seen = sum(1 for _ in client.chat.completions.create(model=model, messages=said, stream=True, max_tokens=int(chunks)))
print(plain * 1e6, (spent() - before) / seen * 1e6)
"""
"""Run by a process of its own: nothing of this one's counts."""

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float
    cpu: float
    rss: int


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _leave)
    try:
        cores = machine.choose_cores()
    except machine.TooFewCores as error:
        say(str(error))
        return 1
    debian.install({"wrk": "wrk"}, "bench")
    if debian.find("wrk") is None:
        say("nothing can be measured without wrk")
        return 1
    machine.raise_file_limit()
    facts = machine.describe() | load.program_version()
    busy_before = machine.busy_share(cores)
    os.sched_setaffinity(0, {cores.rig})
    contender = Llmroute(arguments.gateway or gateway_program())
    version = contender.version()
    gaps = GAPS_MS[:1] if arguments.quick else GAPS_MS
    found: list[Values] = []
    with rounds.standing_in(cores) as upstream:
        for number in range(1 if arguments.quick else arguments.rounds):
            say(f"round {number + 1}")
            found.append(_round(contender, upstream, cores, gaps))
    values = {key: statistics.median(one[key] for one in found) for key in found[0]}
    text = section(values, gaps, facts, version, len(found), busy_before)
    print(text)
    if arguments.markdown:
        report.put_between_marks(arguments.markdown, text)
        say(f"written into {arguments.markdown}")
    return 0


def _round(contender: Llmroute, upstream: int, cores: machine.Cores, gaps: Sequence[int]) -> Values:
    values: Values = {}
    direct = Endpoint(upstream)
    values["sdk_request_us"], values["sdk_chunk_us"] = _sdk(upstream)
    with rounds.serving(contender.prepare, contender.name, upstream, cores) as served:
        child = served.child
        time.sleep(1)
        values["idle_mib"] = process.rss_bytes(child.pid) / _MIB
        load.check(served.endpoint, contender.transparent)
        load.wrk(served.endpoint, 32, 1, load.PLAIN)  # warm
        cpu, began, core = process.cpu_seconds(child.pid), time.monotonic(), machine.core_busy_seconds(cores.contender)
        many = load.wrk(served.endpoint, 32, 4, load.PLAIN)
        spent = process.cpu_seconds(child.pid) - cpu
        others = machine.core_busy_seconds(cores.contender) - core - spent
        values["others"] = max(0.0, others / (time.monotonic() - began))
        values["rps"] = many.answers / many.seconds
        values["request_us"] = spent / many.answers * 1e6
        loaded = process.rss_bytes(child.pid) / _MIB
        values["loaded_mib"] = loaded
        for gap in gaps:
            pace = streams.Pace(STREAMS, round(STREAM_SECONDS * 1000 / gap), gap, RAMP_SECONDS)
            own = streams.paced(direct, pace, lambda: None)
            moments: list[_Moment] = []
            got = streams.paced(served.endpoint, pace, _watching(child.pid, moments))
            steady = _plateau(moments)
            values[f"busy_{gap}"] = steady
            values[f"late_p50_{gap}"], values[f"late_p99_{gap}"] = got.chunk_ms
            values[f"rig_p99_{gap}"] = own.chunk_ms[1]
            values[f"chunk_us_{gap}"] = (moments[-1].cpu - moments[0].cpu) / got.chunks * 1e6
            values[f"streams_mib_{gap}"] = max(moment.rss for moment in moments) / _MIB
            values[f"stream_kib_{gap}"] = (values[f"streams_mib_{gap}"] - loaded) * 1024 / STREAMS
            values[f"broken_{gap}"] = got.broken
    return values


def _watching(pid: int, moments: list[_Moment]) -> Callable[[], None]:
    """To be called four times a second."""
    return lambda: moments.append(_Moment(time.monotonic(), process.cpu_seconds(pid), process.rss_bytes(pid)))


def _plateau(moments: Sequence[_Moment]) -> float:
    """How busy the core was from the last stream's start to the first one's end."""
    began = moments[0].at
    within = [moment for moment in moments if RAMP_SECONDS <= moment.at - began <= STREAM_SECONDS]
    first, last = within[0], within[-1]
    return (last.cpu - first.cpu) / (last.at - first.at)


def _sdk(upstream: int) -> tuple[float, float]:
    """The `openai` SDK's CPU time for a plain request and for a chunk of a stream, in microseconds."""
    done = subprocess.run(
        [sys.executable, "-c", _SDK, str(upstream), CLIENT_KEY, MODEL, "300", "5000"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    request, chunk = done.stdout.split()
    return float(request), float(chunk)


def section(
    values: Mapping[str, float],
    gaps: Sequence[int],
    facts: Mapping[str, str],
    version: str,
    rounds_done: int,
    busy_before: float,
) -> str:
    """The figures in Markdown."""
    chunk_us = values[f"chunk_us_{gaps[0]}"]  # at the slowest pace most chunks come alone; faster ones clump
    chunks = round(STREAM_SECONDS * 1000 / gaps[0])
    lines = [
        f"Medians of {rounds_done} rounds. " + ", ".join(f"{key} {value}" for key, value in facts.items()) + ".",
        f"llmroute {version}.",
        "",
        "| one process, one core | |",
        "|---|--:|",
        f"| requests/s, 32 connections | {values['rps']:,.0f} |",
        f"| CPU time of a request | {values['request_us']:.0f} µs |",
        f"| CPU time of a chunk, of streams of {chunks}, its share of the request included | {chunk_us:.0f} µs |",
        f"| such chunks/s that fill the core | {1e6 / chunk_us:,.0f} |",
        f"| memory, idle and after load | {values['idle_mib']:.0f} and {values['loaded_mib']:.0f} MiB |",
        f"| memory of each stream under way | {values[f'stream_kib_{gaps[0]}']:.0f} KiB |",
        f"| the `openai` SDK's CPU time of a request | {values['sdk_request_us']:.0f} µs |",
        f"| the `openai` SDK's CPU time of a chunk | {values['sdk_chunk_us']:.0f} µs |",
        "",
        f"{STREAMS:,} streams at once, by their pace:",
        "",
        "| chunks/s each | in all | its core busy | late p50, p99 (ms) | p99 without it (ms) | RSS (MiB) | broken |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for gap in gaps:
        late = f"{values[f'late_p50_{gap}']:.2f}, {values[f'late_p99_{gap}']:.1f}"
        lines.append(
            f"| {1000 / gap:.0f} | {STREAMS * 1000 / gap:,.0f} | {values[f'busy_{gap}']:.0%} | {late} "
            f"| {values[f'rig_p99_{gap}']:.1f} | {values[f'streams_mib_{gap}']:.0f} | {values[f'broken_{gap}']:.0f} |"
        )
    if busy_before > _BUSY:
        lines += ["", f"CAVEAT: before it began, the machine was {busy_before:.0%} busy with other work."]
    if values["others"] > _BUSY:
        lines += ["", f"CAVEAT: others took {values['others']:.0%} of the gateway's core; what is late is their doing."]
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.sizing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round, one pace")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--markdown", type=Path, help="a page that gets the figures between its two marks, too")
    parser.add_argument("--gateway", type=Path, help="the llmroute to measure (default: one on Debian's Python)")
    return parser.parse_args()


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
