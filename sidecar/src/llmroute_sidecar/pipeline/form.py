"""What the gateway reads of a form (multipart/form-data, RFC 7578): `model` and `stream`, and what it changes: `model`,
where a target renames it. Sans-IO.

A form is read as a whole, since a retry needs all of it, and is not taken apart: its parts are found by their
boundaries, their few header lines are parsed, and files are never looked into or copied. It goes on byte for byte.

Parsers of forms differ in what they let pass, and a form in which another one could find another model than was
checked would be a way around the client's permissions. So what is read here is the strict form that all of them agree
on and that clients write; anything else is refused, with the reason: a boundary that also stands elsewhere, text
around the parts, folded or broken header lines, names with escapes, a charset, a second `model`. A `model` part that is
spelled in more ways than one is written anew, and so is the Content-Type.
"""

import re

import msgspec

from llmroute_sidecar.pipeline.body import MODEL_MAX_LENGTH, BadBody, Fields, RequestFields, wrong_model
from llmroute_sidecar.policy.limits.demand import BINARY_TOKENS, BYTES_PER_TOKEN
from llmroute_sidecar.upstream.exchange import Headers

FORM_PATHS = frozenset(
    {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/images/variations"}
)
"""Where clients send forms. They are read wherever they are sent but to the paths that know JSON alone."""

PARTS_MAX = 1000
PART_HEAD_MAX_BYTES = 8 * 1024
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_BOUNDARY = re.compile(  # RFC 2046 §5.1.1
    rb"multipart/form-data((?:[ \t]*;[ \t]*%b=(?:%b|\"[^\"\\]*\"))+)[ \t]*" % (_TOKEN, _TOKEN), re.IGNORECASE
)
_BOUNDARY_TEXT = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(rb";[ \t]*(%b)=(?:(%b)|\"([^\"]*)\")[ \t]*" % (_TOKEN, _TOKEN))
_HEADER_LINE = re.compile(rb"(%b):([^\x00-\x08\x0a-\x1f\x7f]*)" % _TOKEN)
_DISPOSITION = re.compile(rb"form-data[ \t]*((?:;[ \t]*%b=(?:%b|\"[^\"]*\")[ \t]*)*)" % (_TOKEN, _TOKEN), re.IGNORECASE)
_UNCLEAR_NAME = re.compile(rb"[\\%]")
_LIKE_MODEL = re.compile(rb"\s*model\s*(?:\[.*)?", re.IGNORECASE | re.DOTALL)
_MODEL_HEAD = b'Content-Disposition: form-data; name="model"\r\n\r\n'
_NAMES = "the form has a part whose name cannot be read for sure"


class FormFields(RequestFields, frozen=True):
    """What is read of a form. `body` is all of it."""

    model_at: tuple[int, int]
    """Where the model's name stands in the body."""
    text_bytes: int
    """Of its parts that are no files."""
    files: int
    content_type: bytes
    """As every parser reads it: the boundary and nothing else, which could be another charset."""

    @property
    def include_usage(self) -> bool:
        return True  # there is nothing to ask for: a form's answer tells of its usage, or does not

    @property
    def prompt_tokens(self) -> int:
        return max(1, self.text_bytes // BYTES_PER_TOKEN + self.files * BINARY_TOKENS)

    def renamed(self, model: str) -> bytes:
        begin, end = self.model_at
        whole = memoryview(self.body)
        return b"".join((whole[:begin], model.encode(), whole[end:]))


class _Part(msgspec.Struct, frozen=True):
    name: bytes
    is_file: bool
    begin: int
    """Of the part, with its header lines."""
    value: int
    """Where its value begins."""
    end: int


def is_form(headers: Headers) -> bool:
    """Whether a request says that its body is a form."""
    return any(name == b"content-type" and value[:10].lower() == b"multipart/" for name, value in headers)


def read_form(headers: Headers, body: bytes) -> FormFields | BadBody:
    """`model` and `stream` of a form; `headers` are those of its request."""
    boundary = _boundary(headers)
    if isinstance(boundary, BadBody):
        return boundary
    parts = _parts(body, b"--" + boundary)
    if isinstance(parts, BadBody):
        return parts
    models = [part for part in parts if _LIKE_MODEL.fullmatch(part.name)]
    if not models:
        return BadBody("model is required, and the form has no field of that name", "model")
    if len(models) > 1:
        return BadBody("the form has more than one field named model; send one", "model")
    part = models[0]
    if part.name != b"model" or part.is_file:
        return BadBody("model must be a plain field of the form, named exactly so", "model")
    model = _model(body, part)
    if isinstance(model, BadBody):
        return model
    if any(part.name.lower() == b"_charset_" for part in parts):  # RFC 7578 §4.6
        return BadBody("the form may not name a charset: it is read as UTF-8")
    text_bytes = sum(part.end - part.value for part in parts if not part.is_file)
    files = sum(part.is_file for part in parts)
    stream = any(part.name == b"stream" and body[part.value : part.end].lower() in (b"true", b"1") for part in parts)
    begin, end = part.value, part.end
    if body[part.begin : part.value] != _MODEL_HEAD:
        body = b"".join((body[: part.begin], _MODEL_HEAD, body[part.value :]))
        begin = part.begin + len(_MODEL_HEAD)
        end = begin + part.end - part.value
    return FormFields(
        model, stream, body, Fields(model, stream), (begin, end), text_bytes, files, _content_type(boundary)
    )


def _model(body: bytes, part: _Part) -> str | BadBody:
    try:
        model = body[part.value : min(part.end, part.value + 4 * MODEL_MAX_LENGTH + 1)].decode()
    except UnicodeDecodeError:
        return BadBody("model is not valid UTF-8", "model")
    return wrong_model(model) or model


def _boundary(headers: Headers) -> bytes | BadBody:
    types = [value for name, value in headers if name == b"content-type"]
    matched = _BOUNDARY.fullmatch(types[0]) if len(types) == 1 else None
    if matched is None:
        return BadBody("Content-Type must be one multipart/form-data with a boundary")
    boundaries = [
        token or quoted for name, token, quoted in _PARAMETER.findall(matched[1]) if name.lower() == b"boundary"
    ]
    if len(boundaries) != 1 or not _BOUNDARY_TEXT.fullmatch(boundaries[0]):
        return BadBody("Content-Type must name one boundary of 1 to 70 characters")
    boundary: bytes = boundaries[0]
    return boundary


def _content_type(boundary: bytes) -> bytes:
    shown = boundary if re.fullmatch(_TOKEN, boundary) else b'"%b"' % boundary
    return b"multipart/form-data; boundary=" + shown


def _parts(body: bytes, mark: bytes) -> list[_Part] | BadBody:
    """`mark` is the boundary with its two dashes."""
    if not body.startswith(mark):
        return BadBody("the form does not begin with its boundary")
    parts: list[_Part] = []
    place = len(mark)
    while body[place : place + 2] == b"\r\n":
        if len(parts) == PARTS_MAX:
            return BadBody(f"the form has more than {PARTS_MAX} parts")
        begin = place + 2
        head_end = body.find(b"\r\n\r\n", begin, begin + PART_HEAD_MAX_BYTES)
        if head_end < 0:
            return BadBody("the form has a part whose header lines do not end")
        value = head_end + 4
        end = body.find(b"\r\n" + mark, value)
        if end < 0:
            return BadBody("the form stops before its last boundary")
        named = _name(body[begin:head_end])
        if isinstance(named, BadBody):
            return named
        parts.append(_Part(*named, begin, value, end))
        place = end + 2 + len(mark)
    if body[place:] not in (b"--\r\n", b"--"):
        return BadBody("the form does not end with its last boundary")
    if body.count(mark) != len(parts) + 1:
        return BadBody("the form's boundary also stands inside a part; choose another one")
    return parts


def _name(head: bytes) -> tuple[bytes, bool] | BadBody:
    """A part's name, and whether it is a file, from its header lines."""
    dispositions: list[bytes] = []
    for line in head.split(b"\r\n"):
        header = _HEADER_LINE.fullmatch(line)
        if header is None:
            return BadBody("the form has a part with a broken header line")
        if header[1].lower() == b"content-disposition":
            dispositions.append(header[2].strip(b" \t"))
    disposition = _DISPOSITION.fullmatch(dispositions[0]) if len(dispositions) == 1 else None
    if disposition is None:
        return BadBody(f"{_NAMES}: each needs one Content-Disposition of form-data")
    parameters: dict[bytes, bytes] = {}
    for name, token, quoted in _PARAMETER.findall(disposition[1]):
        value = token or quoted
        if name.lower() in parameters or (len(value) - len(value.rstrip(b"\\"))) % 2:
            return BadBody(f"{_NAMES}: a parameter stands twice, or ends in a backslash")
        parameters[name.lower()] = value
    part_name = parameters.get(b"name")
    if part_name is None or b"name*" in parameters or _UNCLEAR_NAME.search(part_name):
        return BadBody(f"{_NAMES}: give it one name, without backslashes and %-escapes")
    return part_name, b"filename" in parameters or b"filename*" in parameters
