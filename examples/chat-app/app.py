"""A small chat. Its server calls the gateway beside it and hands the answer on to the browser as it comes.

Nothing here knows of providers, their keys or retries: `OPENAI_BASE_URL` and `OPENAI_API_KEY` are the gateway's. What
the browser gets is one JSON object a line: where the call went, pieces of text, and its end or what went wrong.
"""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Route

PAGE = Path(__file__).with_name("page.html")
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
BODY_MAX_BYTES = 256 * 1024

# The gateway retries and falls back; a limit is for the person to see, not to be waited for here.
gateway = AsyncOpenAI(max_retries=0)


async def page(_: Request) -> FileResponse:
    return FileResponse(PAGE, headers={"content-security-policy": POLICY})


async def models(_: Request) -> JSONResponse:
    """The models that this app may use."""
    try:
        return JSONResponse([model.id async for model in gateway.models.list()])
    except APIError as error:
        return JSONResponse(told(error), 502)


async def chat(request: Request) -> StreamingResponse | JSONResponse:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_MAX_BYTES:
            return JSONResponse({"error": "the conversation is too long"}, 413)
    asked = json.loads(body)
    return StreamingResponse(answer(asked["model"], asked["messages"]), media_type="application/x-ndjson")


async def answer(model: str, messages: list[dict[str, str]]) -> AsyncIterator[str]:
    """The lines that the browser gets. An error after the first piece of text is an error all the same."""
    try:
        raw = await gateway.chat.completions.with_raw_response.create(model=model, messages=messages, stream=True)
        yield line(went(raw.headers))
        async for chunk in raw.parse():
            if chunk.choices and chunk.choices[0].delta.content:
                yield line({"text": chunk.choices[0].delta.content})
        yield line({"end": True})
    except APIError as error:
        yield line(told(error))


def went(headers: Mapping[str, str]) -> dict[str, str | None]:
    """Which upstream answered, and the model that stood in, where one did."""
    return {"upstream": headers.get("x-llmroute-upstream"), "fallback": headers.get("x-fallback-model")}


def told(error: APIError) -> dict[str, str | None]:
    match error:
        case APIStatusError():
            headers = error.response.headers
            return {
                "error": error.message if not isinstance(error.body, dict) else str(error.body.get("message")),
                "limit": headers.get("x-llmroute-limit"),
                "retry_after": headers.get("retry-after"),
            }
        case APIConnectionError():
            return {"error": "the gateway cannot be reached, or the answer broke off"}
        case _:
            return {"error": error.message}


def line(what: Mapping[str, object]) -> str:
    return json.dumps(what) + "\n"


app = Starlette(routes=[Route("/", page), Route("/models", models), Route("/chat", chat, methods=["POST"])])
