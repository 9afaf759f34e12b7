"""An app: calls its model through the official SDK, as the environment that it was given says, and prints what came.

`caller.py [CALLS]`: so many calls and an end with 0 (a Job), or calls until it is told to go. On SIGTERM it makes LAST
calls more before it exits: a gateway that left before its app would fail them. One JSON line a call: when (unix time),
what was said, the error if there was one.
"""

import json
import os
import signal
import sys
import time

from openai import OpenAI, OpenAIError
from openai.types.chat import ChatCompletionUserMessageParam

MODEL = os.environ.get("MODEL", "chat")
STREAM = os.environ.get("STREAM") == "true"
PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "0.05"))
LAST = 20
going = False


def on_term(*_: object) -> None:
    global going
    going = True


def ask(client: OpenAI) -> dict[str, object]:
    messages = [ChatCompletionUserMessageParam(role="user", content="hello")]
    try:
        if STREAM:
            stream = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
            words = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
            return {"said": "".join(words), "error": None}
        answer = client.chat.completions.create(model=MODEL, messages=messages)
        return {"said": answer.choices[0].message.content, "error": None}
    except OpenAIError as error:
        return {"said": None, "error": f"{type(error).__name__}: {error}"}


def main() -> int:
    signal.signal(signal.SIGTERM, on_term)
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else None
    client = OpenAI(max_retries=0, timeout=30)  # a lost call is to be seen
    left, failed = calls, 0
    while left is None or left > 0:
        leaving = going  # as it was when the call began: the signal may come in the midst of it
        if leaving and left is None:
            left = LAST
        began = time.time()
        answer = ask(client)
        failed += answer["error"] is not None
        print(json.dumps({"at": began, "until": time.time(), **answer, "going": leaving}), flush=True)
        if left is not None:
            left -= 1
        time.sleep(PAUSE_SECONDS)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
