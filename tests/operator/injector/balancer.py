"""What a Service does for two replicas: hands each connection to one that is ready, as its readiness probe says."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from tests.operator.injector.injector_process import InjectorProcess


@contextmanager
def balancing(replicas: Sequence[InjectorProcess]) -> Iterator[int]:
    """The port at which they are reached; `replicas` may change meanwhile."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    turn = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        ready = [one for one in list(replicas) if await loop.run_in_executor(None, _is_ready, one)]
        chosen = ready[turn % len(ready)]
        back, forth = await asyncio.open_connection("127.0.0.1", chosen.port)
        try:
            await asyncio.gather(_copy(reader, forth), _copy(back, writer))
        finally:
            for one in (forth, writer):
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(serve, "127.0.0.1", 0), loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    connections = asyncio.all_tasks() - {asyncio.current_task()}
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


def _is_ready(replica: InjectorProcess) -> bool:
    try:
        return replica.process.poll() is None and replica.is_ready()
    except (OSError, httpx.HTTPError):
        return False


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
