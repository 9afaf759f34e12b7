"""What litellm gave, as OpenAI's JSON and events. Pure: works on the plain dictionaries of litellm's models.

litellm leaves out or adds what OpenAI's schema has otherwise; SDKs forgive it, people who index into JSON do not.
"""

import base64
import json
import struct
from typing import Any

DONE = b"data: [DONE]\n\n"
_EXTRAS = frozenset({"annotations", "images", "provider_specific_fields", "reasoning_items", "thinking_blocks"})


def completion(document: dict[str, Any]) -> bytes:
    _drop_empty_extras(document)
    for choice in document.get("choices", ()):
        choice.setdefault("finish_reason", None)
        choice.setdefault("logprobs", None)
        _drop_empty_extras(choice)
        message = choice.get("message")
        if isinstance(message, dict):
            message.setdefault("content", None)
            _drop_empty_extras(message)
    return _json(document)


def chunk(document: dict[str, Any]) -> bytes:
    _drop_empty_extras(document)
    choices = document.get("choices", ())
    for choice in choices:
        choice.setdefault("finish_reason", None)
        choice.setdefault("delta", {})
        _drop_empty_extras(choice)
        _drop_empty_extras(choice["delta"])
    if document.get("usage") and not any(choice["delta"] or choice["finish_reason"] for choice in choices):
        document["choices"] = []  # as OpenAI's chunk of usage has it
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


def _drop_empty_extras(part: dict[str, Any]) -> None:
    """Takes away fields that are not OpenAI's and say nothing, of which litellm has half a dozen a chunk."""
    for name in [name for name in part if name in _EXTRAS or name.startswith("vertex_ai_")]:
        value = part[name]
        if not value or (isinstance(value, dict) and not any(value.values())):
            del part[name]


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
