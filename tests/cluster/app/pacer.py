"""An app with a pace: a call each EVERY_SECONDS, whatever became of those before, over connections that it keeps.

Plain HTTP, for a call that costs little (`caller.py` has the SDK). No call is tried again: one that is lost is to be
seen. Twice a second a JSON line with the sums so far: calls that were made, those that were answered, what became of
the others, and what the last answer said.
"""

import http.client
import json
import os
import signal
import threading
import time
from urllib.parse import urlsplit

MODEL = os.environ.get("MODEL", "chat")
EVERY_SECONDS = float(os.environ.get("EVERY_SECONDS", "0.01"))
LANES = 8
"""Calls at the same time, at most: each lane makes every eighth call, and those that it is late for at once."""
TELL_SECONDS = 0.5
TIMEOUT_SECONDS = 30.0
going = threading.Event()


class Tally:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = self._answered = 0
        self._lost: list[str] = []
        self._said = ""

    def add(self, said: str | None, error: str | None) -> None:
        with self._lock:
            self._calls += 1
            if said is not None:
                self._answered += 1
                self._said = said
            else:
                self._lost.append(f"{time.time():.2f} {error}"[:300])

    def line(self) -> str:
        with self._lock:
            made = {"calls": self._calls, "answered": self._answered, "said": self._said}
            return json.dumps({**made, "failed": len(self._lost), "lost": self._lost[:5], "at": time.time()})


class Lane:
    """One connection at a time, for one call after another."""

    def __init__(self) -> None:
        self._url = urlsplit(os.environ["OPENAI_BASE_URL"])
        self._headers = {
            "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}",
            "content-type": "application/json",
        }
        self._body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]})
        self._connection: http.client.HTTPConnection | None = None

    def ask(self) -> tuple[str | None, str | None]:
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._url.netloc, timeout=TIMEOUT_SECONDS)
            self._connection.request("POST", f"{self._url.path}/chat/completions", self._body, self._headers)
            answer = self._connection.getresponse()
            text = answer.read().decode()
            if answer.status != http.HTTPStatus.OK:
                return None, f"{answer.status} {text}"
            return json.loads(text)["choices"][0]["message"]["content"], None
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            self._connection = None
            return None, f"{type(error).__name__}: {error}"


def run(number: int, began: float, tally: Tally) -> None:
    lane = Lane()
    due = began + number * EVERY_SECONDS
    while not going.wait(max(0.0, due - time.monotonic())):
        tally.add(*lane.ask())
        due += LANES * EVERY_SECONDS


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: going.set())
    tally, began = Tally(), time.monotonic()
    lanes = [threading.Thread(target=run, args=(number, began, tally)) for number in range(LANES)]
    for lane in lanes:
        lane.start()
    while not going.wait(TELL_SECONDS):
        print(tally.line(), flush=True)
    for lane in lanes:
        lane.join()
    print(tally.line(), flush=True)


if __name__ == "__main__":
    main()
