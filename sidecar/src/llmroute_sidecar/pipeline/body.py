"""What the gateway reads of a request's body: `model` and `stream`, and what it changes: `model`, where a target
renames it.

The body is parsed once, skipping all other fields without building them, and goes on byte for byte. Where its
top-level `model` could be read differently by another parser (a name that stands twice, or is spelled with escapes or
capitals: Go's parser takes `Model` for `model`) the body is written anew with the one value that was checked, so that
nobody is served a model which was not asked for here.
"""

from dataclasses import dataclass

import msgspec

MODEL_MAX_LENGTH = 256


class _Fields(msgspec.Struct):
    model: str
    stream: bool | None = None


_decode = msgspec.json.Decoder(_Fields).decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class RequestFields(msgspec.Struct, frozen=True):
    model: str
    stream: bool
    body: bytes


@dataclass(frozen=True, slots=True)
class BadBody:
    """Why a body cannot be used, in words for the client; `param` names the field."""

    message: str
    param: str | None = None


def read_fields(body: bytes) -> RequestFields | BadBody:
    """`model` and `stream` of a JSON body."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            return BadBody(f"the body is not valid UTF-8 (byte {error.start})")
    try:
        fields = _decode(body)
    except msgspec.ValidationError as error:
        return _wrong_field(str(error))
    except msgspec.DecodeError:
        return BadBody("the body is not valid JSON")
    except RecursionError:
        return BadBody("the body is nested too deep")
    model = fields.model
    if not model or len(model) > MODEL_MAX_LENGTH or not model.isprintable():
        return BadBody(f"model must be a text of 1 to {MODEL_MAX_LENGTH} printable characters", "model")
    if body.lower().count(b'"model"') != 1 or b"\\u" in body:
        body = rename_model(body, model)
    return RequestFields(model, bool(fields.stream), body)


def _wrong_field(text: str) -> BadBody:
    if "`$.model`" in text:
        return BadBody("model must be a text", "model")
    if "`$.stream`" in text:
        return BadBody("stream must be true or false", "stream")
    if "missing required field" in text:
        return BadBody("model is required", "model")
    return BadBody("the body must be a JSON object")


def rename_model(body: bytes, model: str) -> bytes:
    """The body with its top-level `model` replaced, and no other that could be taken for it; the other fields' bytes
    stay as they are."""
    fields = _decode_raw(body)
    fields["model"] = msgspec.Raw(_encode(model))
    for name in [name for name in fields if name != "model" and name.lower() == "model"]:
        del fields[name]
    return _encode(fields)
