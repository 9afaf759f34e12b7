"""The worker's endpoints: each puts one call to litellm and tells what came of it in OpenAI's words.

Cancellation: aiohttp cancels the handler when the gateway closes its connection; what is awaited here then ends, and
the provider's connection with it. A stream is always closed, since litellm leaves that to the garbage collector.

A stream that breaks off is broken off here too: the connection is dropped in the middle, so that the gateway sees what
it would see of the provider itself. litellm makes up a `finish_reason` where the provider sent none, which would let a
cut answer pass for a whole one.
"""

import asyncio
import contextlib
import inspect
from typing import Any

import litellm
from aiohttp import web

from llmroute_sidecar.litellm_worker import answer
from llmroute_sidecar.litellm_worker.errors import Failure, failure_of
from llmroute_sidecar.litellm_worker.request import (
    Parameters,
    Request,
    Unfit,
    chat_arguments,
    embedding_arguments,
    read_request,
)

_REQUEST_IDS = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid")


class _Cut(Exception):
    """The provider's stream ended before it was finished."""


async def serve(http: web.BaseRequest) -> web.StreamResponse:
    """One request of the gateway's."""
    endpoint = {"/chat/completions": _chat, "/embeddings": _embeddings}.get(http.path)
    if endpoint is None:
        unknown = f"{http.path[:100]} is not served by litellm:// upstreams"
        return _failed(Failure(404, "unknown_url", unknown))
    try:
        request = read_request(await http.read())
    except Unfit as unfit:
        return _failed(_unfit(unfit))
    try:
        return await endpoint(http, request)
    except Unfit as unfit:
        return _failed(_unfit(unfit))
    except Exception as error:  # noqa: BLE001 - whatever litellm raises is an answer
        return _failed(failure_of(error, request.parameters.secrets))


async def _chat(http: web.BaseRequest, request: Request) -> web.StreamResponse:
    arguments = chat_arguments(request)
    if arguments.pop("stream", False) is True:
        return await _stream(http, await litellm.acompletion(**arguments, stream=True), request.parameters)
    arguments.pop("stream_options", None)
    result = await litellm.acompletion(**arguments)
    return _answered(answer.completion(_plain(result)), result)


async def _embeddings(_: web.BaseRequest, request: Request) -> web.StreamResponse:
    result = await litellm.aembedding(**embedding_arguments(request))
    as_base64 = request.body.get("encoding_format") == "base64"
    return _answered(answer.embeddings(_plain(result), as_base64=as_base64), result)


async def _stream(http: web.BaseRequest, stream: Any, parameters: Parameters) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream", **_ids(stream)})
    one_id: str | None = None
    try:
        async for chunk in stream:
            document = _plain(chunk)
            one_id = document["id"] = one_id or document.get("id")  # for some providers litellm makes one a chunk
            if answer.is_last(document) and not _is_finished(stream):
                raise _Cut
            if not response.prepared:  # not before there is something: until then an error has a status
                await response.prepare(http)
            await response.write(answer.chunk(document))
        if not response.prepared:
            raise _Cut
        await response.write(answer.DONE)
        await response.write_eof()
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        if not response.prepared:
            failure = Failure(502, "bad_response", "the provider's stream was cut") if isinstance(error, _Cut) else None
            return _failed(failure or failure_of(error, parameters.secrets))
        if http.transport is not None:
            http.transport.abort()
    finally:
        await _close(stream)
    return response


def _is_finished(stream: Any) -> bool:
    """Whether the provider itself said that the answer is at its end; litellm has two places for it."""
    return bool(stream.received_finish_reason or stream.intermittent_finish_reason)


async def _close(stream: Any) -> None:
    """Closes what litellm's wrapper reads from, and the wrapper."""
    for closing in (getattr(stream, "completion_stream", None), stream):
        close = getattr(closing, "aclose", None) or getattr(closing, "close", None)
        if close is None:
            continue
        with contextlib.suppress(Exception):
            pending = close()
            if inspect.isawaitable(pending):
                await asyncio.shield(asyncio.ensure_future(pending))


def _plain(model: Any) -> dict[str, Any]:
    document: dict[str, Any] = model.model_dump(mode="json", exclude_none=True)
    return document


def _answered(body: bytes, result: Any) -> web.Response:
    return web.Response(body=body, headers={"content-type": "application/json", **_ids(result)})


def _failed(failure: Failure) -> web.Response:
    headers = {"content-type": "application/json", **failure.headers}
    return web.Response(status=failure.status, body=failure.body, headers=headers)


def _unfit(unfit: Unfit) -> Failure:
    return Failure(unfit.status, unfit.code, unfit.message, unfit.param)


def _ids(result: Any) -> dict[str, str]:
    """The provider's own id of the request, by which it can be asked about."""
    hidden = getattr(result, "_hidden_params", None) or {}
    headers = hidden.get("additional_headers") if isinstance(hidden, dict) else None
    for name in _REQUEST_IDS:
        value = (headers or {}).get(f"llm_provider-{name}")
        if isinstance(value, str) and value.isascii() and value.isprintable():
            return {"x-request-id": value[:200]}
    return {}
