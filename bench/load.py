"""Closed-loop load by wrk: what is posted, and wrk's own count of what came back."""

import http.client
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contenders import CLIENT_KEY, MODEL
from bench.upstream import COMPLETION_BODY, STAMP
from tools.debian import find

PATH = "/v1/chat/completions"
_SCRIPT = Path(__file__).with_name("post.lua")
_MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant that answers in one sentence."},
    {"role": "user", "content": "What does a gateway do, and why would a team want one before its language models?"},
]
PLAIN = json.dumps({"model": MODEL, "messages": _MESSAGES, "temperature": 0.2, "max_tokens": 128})


class Failed(Exception):
    """The load could not be put on, or what came back is no measurement."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how somebody is asked."""

    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside the client's key."""

    def request(self, body: str) -> bytes:
        """As on the wire, for clients that speak HTTP themselves."""
        lines = [f"POST {PATH} HTTP/1.1", f"host: 127.0.0.1:{self.port}", f"authorization: Bearer {CLIENT_KEY}"]
        lines += ["content-type: application/json", f"content-length: {len(body.encode())}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def streaming(chunks: int, gap_ms: int = 0) -> str:
    """The body that asks the stand-in for a stream (`upstream.py` says how it is read)."""
    return json.dumps({"model": MODEL, "messages": _MESSAGES, "max_tokens": chunks, "stream": True, "seed": gap_ms})


def program_version() -> dict[str, str]:
    """wrk's own word on its first line; it ends with status 1 after it."""
    program = find("wrk")
    if program is None:
        return {}
    done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=10)
    words = (done.stdout or done.stderr).split()
    return {"wrk": words[1]} if len(words) > 1 else {}


def check(endpoint: Endpoint, transparent: bool) -> None:
    """Asks once for each kind of answer. Raises Failed where it is not the stand-in's: a fast error is no contender.

    From one that is not transparent the answer must say the same, in whatever bytes.
    """
    status, body = _post(endpoint, PLAIN)
    same = body == COMPLETION_BODY if transparent else _said(body) == _said(COMPLETION_BODY)
    if status != 200 or not same:
        raise Failed(f"it does not hand on the provider's answer, but {status} {body[:200]!r}")
    status, body = _post(endpoint, streaming(chunks=5))
    if status != 200 or body.count(STAMP) < 5 or not body.endswith(b"data: [DONE]\n\n"):
        raise Failed(f"it does not hand on the provider's stream, but {status} {body[-200:]!r}")


def _said(body: bytes) -> Any:
    """What an application reads of an answer."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        said = choice["message"]["role"], choice["message"]["content"], choice["finish_reason"]
        return answer["id"], said, answer["usage"]["total_tokens"]
    except (ValueError, LookupError, TypeError):
        return None


def _post(endpoint: Endpoint, body: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
    headers = {"content-type": "application/json", "authorization": f"Bearer {CLIENT_KEY}", **endpoint.headers}
    try:
        connection.request("POST", PATH, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise Failed(f"it does not speak HTTP: {error!r}") from None
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Load:
    answers: int
    """Those with a status below 400."""
    errors: int
    seconds: float
    bytes: int
    p50_us: float
    p99_us: float


def wrk(endpoint: Endpoint, connections: int, seconds: float, body: str) -> Load:
    """Raises Failed where wrk does, or where nothing but errors came back."""
    program = find("wrk")
    if program is None:
        raise Failed("wrk is not installed")
    headers = "\n".join(f"{name}: {value}" for name, value in endpoint.headers.items())
    done = subprocess.run(
        [
            *(program, "--threads", "1", "--connections", str(connections), "--duration", f"{max(round(seconds), 1)}s"),
            *("--timeout", "5s", "--script", str(_SCRIPT), f"http://127.0.0.1:{endpoint.port}{PATH}"),
        ],
        env={**os.environ, "BENCH_BODY": body, "BENCH_KEY": CLIENT_KEY, "BENCH_HEADERS": headers},
        capture_output=True,
        text=True,
        timeout=seconds + 20,
    )
    line = done.stdout.strip().rpartition("\n")[2]
    if done.returncode != 0 or not line.startswith("{"):
        raise Failed(f"wrk: {(done.stderr or done.stdout).strip()[-200:]}")
    told = json.loads(line)
    load = Load(
        answers=told["requests"] - told["refused"],
        errors=told["refused"] + told["broken"],
        seconds=told["duration_us"] / 1e6,
        bytes=told["bytes"],
        p50_us=told["p50_us"],
        p99_us=told["p99_us"],
    )
    if load.answers <= 0:
        raise Failed(f"no answer but errors: {told['refused']} refused, {told['broken']} broken")
    return load
