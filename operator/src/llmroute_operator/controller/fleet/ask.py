"""Asks one sidecar for its status: the edge to the pods. One GET to the pod's own address, no credentials sent, no
redirect followed, no proxy, a bound on time and size."""

import aiohttp

from llmroute_operator.controller.fleet.pod import GatewayPod
from llmroute_operator.controller.fleet.report import Report, UnreadableReport, read_report

AT_ONCE = 16
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 4.0
BODY_MAX_BYTES = 1024 * 1024
"""A gateway of 1,000 models answers with a tenth of it."""


class NoAnswer(Exception):
    """Why, in words for a route's status."""


class Asker:
    """Holds no connection longer than a question: thousands of pods are asked, each seldom."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=AT_ONCE, force_close=True),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "llmroute-controller"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def ask(self, pod: GatewayPod) -> Report:
        """Raises NoAnswer."""
        try:
            async with self._session.get(pod.url, allow_redirects=False) as response:
                if response.status != 200:
                    raise NoAnswer(f"its admin port {pod.port} answers with {response.status}")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > BODY_MAX_BYTES:
                        raise NoAnswer(f"its admin port {pod.port} answers with more than {BODY_MAX_BYTES} bytes")
            return read_report(bytes(body))
        except TimeoutError:
            raise NoAnswer(f"its admin port {pod.port} does not answer (a NetworkPolicy may keep it away)") from None
        except aiohttp.ClientConnectorError as error:
            raise NoAnswer(f"no connection to its admin port {pod.port} ({_word(error)})") from None
        except (aiohttp.ClientError, OSError):
            raise NoAnswer(f"its admin port {pod.port} speaks no HTTP, or broke off") from None
        except UnreadableReport as error:
            raise NoAnswer(f"its admin port {pod.port} answers, but {error}") from None


def _word(error: aiohttp.ClientConnectorError) -> str:
    return "refused" if isinstance(error.os_error, ConnectionRefusedError) else "unreachable"
