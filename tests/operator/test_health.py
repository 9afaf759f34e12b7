"""Signs of life, and what the probe is told of them."""

import asyncio

import aiohttp
import pytest

from llmroute_operator.controller.health import health_application, serving
from llmroute_operator.controller.life import SignsOfLife
from llmroute_operator.controller.metrics import Metrics
from llmroute_operator.controller.settings import CannotStart


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_watch_hangs_once_its_last_sign_is_too_old() -> None:
    clock = Clock()
    life = SignsOfLife(["a", "b"], clock, 100)
    clock.now = 60
    life.moved("a")
    clock.now = 100
    assert life.hanging() == []
    assert (life.remaining("a"), life.remaining("b")) == (60, 0)
    clock.now = 101
    assert life.hanging() == ["b"]
    life.moved("b")
    assert life.hanging() == []


def test_a_refusal_moves_a_watch_and_leaves_it_silent() -> None:
    clock = Clock()
    life = SignsOfLife(["a"], clock, 100)
    clock.now = 90
    life.moved("a")
    clock.now = 120
    assert (life.silences(), life.hanging(), life.remaining("a")) == ({"a": 120}, [], 70)
    life.heard("a")
    assert (life.silences(), life.remaining("a")) == ({"a": 0}, 100)


async def _probe(clock: Clock, life: SignsOfLife) -> list[int]:
    seen = []
    async with serving(health_application(life, Metrics("1")), "127.0.0.1", 0) as port, aiohttp.ClientSession() as http:
        for now in (0, 99, 101):
            clock.now = now
            async with http.get(f"http://127.0.0.1:{port}/healthz") as answer:
                seen.append(answer.status)
        life.moved("a")
        async with http.get(f"http://127.0.0.1:{port}/healthz") as answer:
            seen.append(answer.status)
    return seen


def test_healthz_turns_503_while_a_watch_hangs() -> None:
    clock = Clock()
    assert asyncio.run(_probe(clock, SignsOfLife(["a"], clock, 100))) == [200, 200, 503, 200]


async def _take_twice() -> None:
    application = health_application(SignsOfLife([], Clock(), 1), Metrics("1"))
    async with serving(application, "127.0.0.1", 0) as port:
        again = health_application(SignsOfLife([], Clock(), 1), Metrics("1"))
        async with serving(again, "127.0.0.1", port):
            pass


def test_a_port_that_is_taken_is_said_in_one_sentence() -> None:
    with pytest.raises(CannotStart, match="cannot listen on 127"):
        asyncio.run(_take_twice())
