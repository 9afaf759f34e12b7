"""A provider: answers chat completions with the text SAYS, if the call brings the key KEY.

A stream has a word every GAP seconds, WORDS times.
"""

import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SAYS = os.environ.get("SAYS", "hello")
KEY = os.environ.get("KEY")
GAP = float(os.environ.get("GAP", "0.02"))
WORDS = int(os.environ.get("WORDS", "10"))
FRAME = {"id": "chatcmpl-1", "created": 1, "model": "m"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200, {"ready": True})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if KEY and self.headers.get("authorization") != f"Bearer {KEY}":
            self._answer(401, {"error": {"message": "wrong key", "type": "invalid_request_error"}})
        elif body.get("stream"):
            self._stream()
        else:
            message = {"role": "assistant", "content": SAYS}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            self._answer(200, {**FRAME, "object": "chat.completion", "choices": [choice], "usage": usage})

    def _answer(self, status: int, document: object) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(WORDS):
            self._event({"content": f"{SAYS} "}, "stop" if number == WORDS - 1 else None)
            time.sleep(GAP)
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, delta: object, finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        document = {**FRAME, "object": "chat.completion.chunk", "choices": [choice]}
        self._chunk(b"data: " + json.dumps(document).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    Server(("", 8000), Handler).serve_forever()
