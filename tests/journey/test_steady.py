"""The app that the journeys set beside llmroute: its schedule is kept whatever becomes of its calls."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.control_plane import REPOSITORY
from tests.provider import Behaviour, ProviderRequest, completion, providing, response

pytestmark = pytest.mark.server

PACER = REPOSITORY / "tests" / "cluster" / "app" / "pacer.py"
MOST = 100
"""As the pacer has it: calls at once."""


@contextmanager
def pacing(behaviour: Behaviour) -> Iterator["subprocess.Popen[str]"]:
    with providing(behaviour) as provider:
        environment = {**os.environ, "OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": "k"}
        command = [sys.executable, str(PACER)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as pacer:
            try:
                yield pacer
            finally:
                pacer.kill()


def sums(pacer: "subprocess.Popen[str]") -> dict[str, Any]:
    assert pacer.stdout is not None
    return dict(json.loads(pacer.stdout.readline()))


def test_calls_begin_while_not_one_has_been_answered_and_none_of_the_schedule_is_left_out() -> None:
    """Nobody is answered until as many calls as may be have come; slots that came meanwhile begin after that."""
    came = 0
    all_there = asyncio.Event()

    async def answers_once_all_are_there(_: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        if came == MOST:
            all_there.set()
        await all_there.wait()
        writer.write(response(200, completion("at last")))

    with pacing(answers_once_all_are_there) as pacer:
        found = sums(pacer)
        while found["answered"] < MOST:
            found = sums(pacer)
        assert (found["most"], found["said"], found["lost"]) == (MOST, "at last", [])
        pacer.terminate()
        last = [json.loads(line) for line in pacer.stdout or ()][-1]
    assert last["asked"] == last["started"] == last["answered"] == came


def test_what_is_lost_is_told_and_the_schedule_goes_on() -> None:
    """A refusal, and a connection that ends under a call: the next call has another one."""

    async def breaks_each_second(request: ProviderRequest, writer: asyncio.StreamWriter) -> None:
        if request.connection % 2:
            writer.close()
        else:
            writer.write(response(503, b"{}", "connection: close"))

    with pacing(breaks_each_second) as pacer:
        found = sums(pacer)
        while found["failed"] < MOST:
            found = sums(pacer)
    assert found["answered"] == 0
    assert {what.split(maxsplit=1)[1].split()[0] for what in found["lost"]} == {"503", "IncompleteReadError:"}
