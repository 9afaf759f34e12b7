"""What the gateway reads of a JSON body (of a form: form.py): `model` and `stream`, and what it changes: `model`, where
a target renames it.

The body is parsed once, skipping all other fields without building them, and goes on byte for byte but for the
model's name. Where its top-level `model` could be read differently by another parser (a name that stands twice, or is
spelled with escapes or capitals: Go's parser takes `Model` for `model`) the body is written anew with the one value
that was checked, so that nobody is served a model which was not asked for here. That takes its fields apart, and a body
of 32 MiB has room for millions, which would hold up all other calls for seconds: so they are bounded.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import msgspec

from llmroute_sidecar.policy.limits.demand import prompt_tokens

JSON_PATHS = frozenset(
    {
        "/v1/audio/speech",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/images/generations",
        "/v1/messages",
        "/v1/moderations",
        "/v1/rerank",
        "/v1/responses",
    }
)
"""Where a body is JSON and nothing else."""
MODEL_MAX_LENGTH = 256
FIELDS_MAX = 1000
"""Of the body's own; what is in their values is never taken apart."""
_FIELD_MIN_BYTES = len(b'"":0,')
_MODEL = b'"model"'
_LIKE_MODEL = re.compile(  # as any parser may read it: letters of either case, or their escapes
    rb'"(?:m|\\u00[46]d)(?:o|\\u00[46]f)(?:d|\\u00[46]4)(?:e|\\u00[46]5)(?:l|\\u00[46]c)"', re.IGNORECASE
)


class Fields(msgspec.Struct):
    """What is read of a body. What limits may want to know stays raw until they do: another type than is expected
    there is for the upstream to refuse."""

    model: str
    stream: bool | None = None
    max_tokens: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    max_completion_tokens: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    max_output_tokens: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    n: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream_options: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    models: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    fallbacks: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_decode = msgspec.json.Decoder(Fields).decode
_decode_count = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=1, le=10**9)]).decode
_decode_options = msgspec.json.Decoder(_StreamOptions | None).decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_options_raw = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode
_decode_names = msgspec.json.Decoder(tuple[str, ...] | None).decode
_encode = msgspec.json.Encoder().encode


class _Name(str):
    """A field's, counted when it is read."""

    __slots__ = ()


class RequestFields(msgspec.Struct, frozen=True):
    model: str
    stream: bool
    body: bytes
    read: Fields

    @property
    def max_output(self) -> int | None:
        """Tokens that the answer may have, as far as the body bounds them."""
        read = self.read
        for raw in (read.max_completion_tokens, read.max_tokens, read.max_output_tokens):
            if (most := _count(raw)) is not None:
                return most * (_count(read.n) or 1)
        return None

    @property
    def include_usage(self) -> bool:
        """Whether the client asks for the usage of a stream."""
        options = self.read.stream_options
        if isinstance(options, msgspec.UnsetType):
            return False
        try:
            asked = _decode_options(options)
            return asked is not None and bool(asked.include_usage)
        except msgspec.DecodeError:
            return True  # of a form that is not ours to change

    @property
    def more_models(self) -> tuple[str, ...] | None:
        """Models that an upstream may fall back to by itself, as OpenRouter's `models` and LiteLLM's `fallbacks` name
        them; None where they are named in another way, which cannot be checked."""
        names: tuple[str, ...] = ()
        for raw in (self.read.models, self.read.fallbacks):
            if not isinstance(raw, msgspec.UnsetType):
                try:
                    names += _decode_names(raw) or ()
                except msgspec.DecodeError:
                    return None
        return names

    @property
    def prompt_tokens(self) -> int:
        """About how many tokens it has in it; at least one."""
        return prompt_tokens(self.body)

    def renamed(self, model: str) -> bytes:
        """The body with another model."""
        return rename_model(self.body, model)


def _count(raw: msgspec.Raw | msgspec.UnsetType) -> int | None:
    if isinstance(raw, msgspec.UnsetType):
        return None
    try:
        count: int = _decode_count(raw)
        return count
    except msgspec.DecodeError:
        return None


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
    # A field has a colon: nearly no body has so many of them, and only of one that has are the fields counted.
    if len(body) > FIELDS_MAX * _FIELD_MIN_BYTES and body.count(b":") > FIELDS_MAX and _has_too_many_fields(body):
        return BadBody(f"the body has more than {FIELDS_MAX} fields")
    try:
        fields = _decode(body)
    except msgspec.ValidationError as error:
        return _wrong_field(str(error))
    except msgspec.DecodeError:
        return BadBody("the body is not valid JSON")
    except RecursionError:
        return BadBody("the body is nested too deep")
    model = fields.model
    if (wrong := wrong_model(model)) is not None:
        return wrong
    if not _is_plain(body):
        body = _with_one_model(body, model)
        fields = _decode(body)  # what stays raw must not keep the other body
    return RequestFields(model, bool(fields.stream), body, fields)


def _has_too_many_fields(body: bytes) -> bool:
    """Stops reading at the first that is one too many."""
    count = 0

    def read(_: type, name: str) -> _Name:
        nonlocal count
        count += 1
        if count > FIELDS_MAX:
            raise ValueError
        return _Name(name)

    with suppress(msgspec.DecodeError, RecursionError):  # told by who reads its values
        msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=read).decode(body)
    return count > FIELDS_MAX


def _is_plain(body: bytes) -> bool:
    """Whether nothing in a body that has a `model` looks like one but the field's own name, which is then written as
    it is here."""
    if b"\\u00" not in body:
        return body.lower().count(_MODEL) == 1
    first = _LIKE_MODEL.search(body)
    return first is not None and first[0] == _MODEL and _LIKE_MODEL.search(body, first.end() - 1) is None


def wrong_model(model: str) -> BadBody | None:
    """Why this can be no model's name."""
    if not model or len(model) > MODEL_MAX_LENGTH or not model.isprintable():
        return BadBody(f"model must be a text of 1 to {MODEL_MAX_LENGTH} printable characters", "model")
    return None


def _wrong_field(text: str) -> BadBody:
    if "`$.model`" in text:
        return BadBody("model must be a text", "model")
    if "`$.stream`" in text:
        return BadBody("stream must be true or false", "stream")
    if "missing required field" in text:
        return BadBody("model is required", "model")
    return BadBody("the body must be a JSON object")


def with_usage_asked_for(body: bytes) -> bytes:
    """The body with `stream_options.include_usage` set; other options and fields as they are."""
    fields = _decode_raw(body)
    options: dict[str, msgspec.Raw] = {}
    if "stream_options" in fields:
        options = _decode_options_raw(fields["stream_options"]) or {}
    options["include_usage"] = msgspec.Raw(b"true")
    fields["stream_options"] = msgspec.Raw(_encode(options))
    return _encode(fields)


def rename_model(body: bytes, model: str) -> bytes:
    """A body that `read_fields` gave, with its top-level `model` replaced; all else stays as it is."""
    place = body.find(_MODEL) + len(_MODEL)
    begin = body.find(b'"', place)
    end = body.find(b'"', begin + 1) + 1
    if body.find(_MODEL, place) >= 0 or body.find(b"\\", begin, end) >= 0:
        return _with_one_model(body, model)  # where it stands, or ends, cannot be seen like that
    whole = memoryview(body)
    return b"".join((whole[:begin], _encode(model), whole[end:]))


def _with_one_model(body: bytes, model: str) -> bytes:
    """The body with this as its top-level `model`, and no other that could be taken for it; the other fields' bytes
    stay as they are, what is between them does not."""
    fields = _decode_raw(body)
    fields["model"] = msgspec.Raw(_encode(model))
    for name in [name for name in fields if name != "model" and name.lower() == "model"]:
        del fields[name]
    return _encode(fields)
