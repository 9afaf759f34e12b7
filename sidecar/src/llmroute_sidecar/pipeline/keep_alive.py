"""Signs of life in a stream that is silent, so that proxies on its way do not cut it. Where a model asks for it, never
otherwise.

Theory of operation
===================

A client that waits for the first token hears nothing, and load balancers cut what is silent for a minute. A sign of
life needs a status line before it, and after that there is no other answer than this stream. So the times for both are
the route's to choose (`models[].keepAlive`):

    silent since the call began for `after`   200, text/event-stream and a first sign of life. The upstream that is
                                              being tried has the call to itself from here on: no fallback, no retry.
    silent for `every` since                  another sign of life, before the content as between its pieces

What fails once the stream has begun is told in it, as an error event in its protocol and no `[DONE]`; so is a client's
mistake that an upstream finds only now. A sign of life is an SSE comment, which every reader of events skips (HTML
§9.2), or on `/v1/messages` Anthropic's own `ping`. It goes between whole events only, and not to a client that reads
too slowly: that one has enough to read.

One timer a stream, looked at when it fires and not moved by each piece that goes by. No signs between two attempts: the
choice of an upstream is open then, and beginning the answer would close it.
"""

import asyncio
from collections.abc import Callable

from llmroute_sidecar.pipeline.call import Call, Reply
from llmroute_sidecar.pipeline.events import WholeEvents
from llmroute_sidecar.pipeline.headers import begun_headers

COMMENT = b": keep-alive\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


class KeepAlive:
    """Of one call. On the way of a relayed stream to its client it is a `Sink`."""

    __slots__ = (
        "_call",
        "_due",
        "_events",
        "_every",
        "_fallback",
        "_last",
        "_loop",
        "_reply",
        "_sign",
        "_timer",
        "begun",
    )

    def __init__(self, call: Call, reply: Reply, loop: asyncio.AbstractEventLoop, after: float, every: float) -> None:
        self._call = call
        self._reply = reply
        self._loop = loop
        self._due = loop.time() + after
        self._every = every
        self._sign = PING if call.anthropic else COMMENT
        self._fallback: str | None = None
        self._events: WholeEvents | None = None
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.begun = False
        """The answer has begun with a sign of life: this stream is the answer, whatever it brings."""

    def watch(self, fallback: str | None) -> None:
        """An attempt begins; at the model `fallback` where it is one."""
        self._fallback = fallback
        self._timer = self._loop.call_at(self._due, self._begin)

    def relays(self, events: WholeEvents) -> None:
        """The content has come, and goes out through `events` to here from now on."""
        self.stop()
        self._events = events
        self._last = self._loop.time()
        self._timer = self._loop.call_at(self._last + self._every, self._look)

    def stop(self) -> None:
        """The attempt or the answer is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self.begun = True
        self._reply.start(200, begun_headers(self._call, self._fallback), None)
        self._reply.write(self._sign)
        self._last = self._loop.time()
        self._timer = self._loop.call_at(self._last + self._every, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._last + self._every:
            if not self._reply.paused and (self._events is None or self._events.between):
                self._reply.write(self._sign)
            self._last = now
        self._timer = self._loop.call_at(self._last + self._every, self._look)

    # -- Sink ----------------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        return self._reply.paused

    def write(self, data: bytes) -> None:
        self._last = self._loop.time()
        self._reply.write(data)

    def on_resume(self, callback: Callable[[], None] | None) -> None:
        self._reply.on_resume(callback)
