"""What litellm gave, as OpenAI's JSON and events. Pure: works on the plain dictionaries of litellm's models.

litellm leaves out or adds what OpenAI's schema has otherwise; SDKs forgive it, people who index into JSON do not.
"""

import base64
import json
import struct
from typing import Any

DONE = b"data: [DONE]\n\n"


def completion(document: dict[str, Any]) -> bytes:
    for choice in document.get("choices", ()):
        choice.setdefault("finish_reason", None)
        choice.setdefault("logprobs", None)
        message = choice.get("message")
        if isinstance(message, dict):
            message.setdefault("content", None)
    return _json(document)


def chunk(document: dict[str, Any]) -> bytes:
    for choice in document.get("choices", ()):
        choice.setdefault("finish_reason", None)
        choice.setdefault("delta", {})
    return b"data: " + _json(document) + b"\n\n"


def embeddings(document: dict[str, Any], *, as_base64: bool) -> bytes:
    for entry in document.get("data", ()):
        vector = entry.get("embedding")
        if as_base64 and isinstance(vector, list):
            entry["embedding"] = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return _json(document)


def is_last(document: dict[str, Any]) -> bool:
    """Whether a chunk says that the answer is finished."""
    return any(choice.get("finish_reason") for choice in document.get("choices", ()))


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
