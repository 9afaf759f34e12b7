"""What is read of a form is what every parser reads of what goes on; what one could read otherwise is refused."""

import email.parser
import email.policy
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from python_multipart import FormParser
from python_multipart.multipart import Field, File, parse_options_header

from llmroute_sidecar.pipeline.body import BadBody
from llmroute_sidecar.pipeline.form import PART_HEAD_MAX_BYTES, PARTS_MAX, FormFields, is_form, read_form
from llmroute_sidecar.upstream.exchange import Headers

BOUNDARY = "b0undary"
HEADERS: Headers = [(b"content-type", b"multipart/form-data; boundary=b0undary")]
MODEL = 'Content-Disposition: form-data; name="model"'
FILE = 'Content-Disposition: form-data; name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg'


def form(*parts: tuple[str, bytes], boundary: str = BOUNDARY) -> bytes:
    """A form of parts, each its header lines and its value."""
    mark = b"--" + boundary.encode()
    told = b"".join(b"%b\r\n%b\r\n\r\n%b\r\n" % (mark, head.encode("latin-1"), value) for head, value in parts)
    return told + mark + b"--\r\n"


def good(body: bytes, headers: Headers = HEADERS) -> FormFields:
    read = read_form(headers, body)
    assert isinstance(read, FormFields), read
    return read


def by_python_multipart(headers: Headers, body: bytes) -> list[bytes]:
    """The values of `model` as the parser of Starlette and FastAPI, and so of vLLM, reads them."""
    models: list[bytes] = []

    def on_field(field: Field) -> None:
        if field.field_name == b"model":
            models.append(field.value or b"")

    def on_file(file: File) -> None:
        if file.field_name == b"model":
            file.file_object.seek(0)
            models.append(file.file_object.read())
        file.close()

    kind, options = parse_options_header(headers[0][1])
    parser = FormParser(kind.decode(), on_field, on_file, boundary=options.get(b"boundary"))
    parser.write(body)
    parser.finalize()
    parser.close()
    return models


def by_email(headers: Headers, body: bytes) -> list[bytes]:
    """The same by the standard library's parser of mail, which takes nearly anything."""
    head = b"Content-Type: " + headers[0][1] + b"\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    found: list[bytes] = []
    for part in message.iter_parts():
        if part.get_param("name", header="content-disposition") == "model":
            value = part.get_payload(decode=True)
            assert isinstance(value, bytes)
            found.append(value)
    return found


@pytest.mark.parametrize("first", [True, False])
def test_a_form_of_an_sdk_goes_on_byte_for_byte(first: bool) -> None:
    fields = {"model": "whisper", "stream": "true", "timestamp_granularities[]": ["word", "segment"], "prompt": "grüße"}
    file = ('a"b; name=model.mp3', bytes(range(256)) * 9, "audio/mpeg")
    request = httpx.Request("POST", "http://x", data=fields, files={"file": file})
    body = request.read()
    if not first:  # some clients write the file before the fields
        mark = b"--" + request.headers["content-type"].partition("boundary=")[2].encode()
        pieces = body.split(mark)
        body = mark.join([pieces[0], pieces[-2], *pieces[1:-2], pieces[-1]])
    headers = [(b"content-type", request.headers["content-type"].encode())]
    assert is_form(headers)
    read = good(body, headers)
    assert (read.model, read.stream, read.files) == ("whisper", True, 1)
    assert read.body is body
    renamed = read.renamed("gpt-4o-transcribe-eu")
    assert renamed == body.replace(b"\r\nwhisper\r\n", b"\r\ngpt-4o-transcribe-eu\r\n")
    assert by_python_multipart(headers, renamed) == by_email(headers, renamed) == [b"gpt-4o-transcribe-eu"]


def test_a_prompt_counts_as_text_and_a_file_as_one_thing() -> None:
    text = form((MODEL, b"m"), ('Content-Disposition: form-data; name="prompt"', b"x" * 400))
    assert good(text).prompt_tokens == 100
    assert good(form((MODEL, b"m"), (FILE, b"x" * 10_000_000))).prompt_tokens == 1000


@pytest.mark.parametrize(
    ("head", "value"),
    [
        ("content-disposition: form-data; name=model", b"gpt"),
        ("Content-Disposition:form-data;name=\"model\"", b"gpt"),
        (MODEL + "\r\nContent-Type: text/plain; charset=utf-16", b"gpt"),
        (MODEL + "\r\nContent-Transfer-Encoding: base64", b"Z3B0"),
    ],
)  # fmt: skip
def test_a_model_that_is_spelled_otherwise_is_written_plainly(head: str, value: bytes) -> None:
    before, after = (FILE, b"1\r\n2"), ('Content-Disposition: form-data; name="n"', b"2")
    read = good(form(before, (head, value), after))
    assert read.model == value.decode()
    assert read.body == form(before, (MODEL, value), after)
    assert read.renamed("other") == form(before, (MODEL, b"other"), after)


CONTENT_TYPES = {
    "quoted": b'multipart/form-data; boundary="b0undary"',
    "with another parameter": b"multipart/form-data; charset=utf-7;boundary=b0undary",
    "in capitals": b"Multipart/Form-Data; Boundary=b0undary",
}


@pytest.mark.parametrize("name", CONTENT_TYPES)
def test_the_boundary_is_found_however_it_is_told_and_told_on_plainly(name: str) -> None:
    read = good(form((MODEL, b"gpt")), [(b"content-type", CONTENT_TYPES[name])])
    assert (read.model, read.content_type) == ("gpt", b"multipart/form-data; boundary=b0undary")


def test_a_boundary_that_is_no_token_stays_quoted() -> None:
    headers: Headers = [(b"content-type", b'multipart/form-data; boundary="a:b, c"')]
    read = good(form((MODEL, b"gpt"), boundary="a:b, c"), headers)
    assert read.content_type == headers[0][1]
    assert by_python_multipart([(b"content-type", read.content_type)], read.body) == [b"gpt"]


WRONG_TYPES: dict[str, list[bytes]] = {
    "no boundary": [b"multipart/form-data"],
    "an empty boundary": [b'multipart/form-data; boundary=""'],
    "two boundaries": [b"multipart/form-data; boundary=b0undary; boundary=other"],
    "a boundary above 70 characters": [b"multipart/form-data; boundary=" + b"b" * 71],
    "a boundary that ends in a space": [b'multipart/form-data; boundary="b "'],
    "an escaped boundary": [b'multipart/form-data; boundary="b0\\undary"'],
    "another multipart": [b"multipart/mixed; boundary=b0undary"],
    "two types": [b"multipart/form-data; boundary=b0undary", b"application/json"],
    "text behind it": [b"multipart/form-data; boundary=b0undary, text/plain"],
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_a_type_that_tells_no_one_boundary_is_refused(name: str) -> None:
    read = read_form([(b"content-type", value) for value in WRONG_TYPES[name]], form((MODEL, b"gpt")))
    assert isinstance(read, BadBody)
    assert "Content-Type" in read.message


GOOD = form((MODEL, b"gpt"))
SECOND = b'--b0undary\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\r\n'
WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "begin"),
    "no part": (b"--b0undary--\r\n", "model is required"),
    "no model": (form((FILE, b"1")), "model is required"),
    "text before it": (b"preamble\r\n" + GOOD, "begin"),
    "a line break before it": (b"\r\n" + GOOD, "begin"),
    "text after it": (GOOD + b"epilogue", "last boundary"),
    "a second form after it": (GOOD + GOOD, "last boundary"),
    "no end": (GOOD[:-4], "last boundary"),
    "cut inside a value": (form((FILE, b"1" * 99))[:120], "stops"),
    "cut inside header lines": (GOOD[:30], "header lines"),
    "header lines without end": (form((MODEL + "\r\nx: " + "y" * 9000, b"gpt")), "header lines"),
    "no header lines": (b"--b0undary\r\n\r\ngpt\r\n--b0undary--\r\n", "header line"),
    "bare line feeds": (GOOD.replace(b"\r\n", b"\n"), "last boundary"),
    "a boundary behind a bare line feed": (form((MODEL, b"gpt"), (FILE, b"1\n" + SECOND)), "inside a part"),
    "a boundary within a line": (form((MODEL, b"gpt"), (FILE, b"x--b0undary")), "inside a part"),
    "a boundary with a space behind it": (GOOD.replace(b"--b0undary\r\n", b"--b0undary \r\n"), "last boundary"),
    "two models": (form((MODEL, b"gpt"), (MODEL, b"other")), "more than one"),
    "the same model twice": (form((MODEL, b"gpt"), (MODEL, b"gpt")), "more than one"),
    "another spelling beside it": (form((MODEL, b"gpt"), (MODEL.replace("model", "Model"), b"o")), "more than one"),
    "a list beside it": (form((MODEL, b"gpt"), (MODEL.replace("model", "model[]"), b"o")), "more than one"),
    "another spelling alone": (form((MODEL.replace("model", "MODEL"), b"gpt")), "named exactly so"),
    "spaces around the name": (form((MODEL.replace("model", " model "), b"gpt")), "named exactly so"),
    "a file": (form((MODEL + '; filename="m"', b"gpt")), "plain field"),
    "an escaped name": (form((MODEL, b"gpt"), (MODEL.replace("model", "mo\\del"), b"o")), "without backslashes"),
    "a name in percents": (form((MODEL, b"gpt"), (MODEL.replace("model", "%6dodel"), b"o")), "without backslashes"),
    "an extended name": (form((MODEL + "; name*=utf-8''model", b"gpt")), "one name"),
    "two names": (form((MODEL + '; name="other"', b"gpt")), "stands twice"),
    "no name": (form((MODEL, b"gpt"), ("Content-Disposition: form-data", b"o")), "one name"),
    "no disposition": (form(("Content-Type: text/plain", b"gpt")), "Content-Disposition"),
    "two dispositions": (form((MODEL + "\r\n" + MODEL, b"gpt")), "Content-Disposition"),
    "another disposition": (form((MODEL.replace("form-data", "attachment"), b"gpt")), "Content-Disposition"),
    "a name within a file's name": (
        form((MODEL, b"gpt"), (r'Content-Disposition: form-data; name="file"; filename="a\"; name=\"model"', b"o")),
        "Content-Disposition",
    ),
    "a file's name that ends in a backslash": (
        form((MODEL, b"gpt"), (r'Content-Disposition: form-data; name="file"; filename="a\"', b"o")),
        "backslash",
    ),
    "a folded header line": (form((MODEL.replace("; name", ";\r\n name"), b"gpt")), "header line"),
    "a charset": (form((MODEL, b"gpt"), ('Content-Disposition: form-data; name="_charset_"', b"utf-7")), "charset"),
    "a zero byte in a header line": (form((MODEL + "\x00", b"gpt")), "header line"),
    "a bare line feed in a header line": (form((MODEL + "\nx: y", b"gpt")), "header line"),
    "an empty model": (form((MODEL, b"")), "printable"),
    "a model with a line break": (form((MODEL, b"gpt\r\nx")), "printable"),
    "a very long model": (form((MODEL, b"m" * 100_000)), "printable"),
    "a model that is no text": (form((MODEL, b"\xff")), "UTF-8"),
    "parts without number": (form((MODEL, b"gpt"), *[("x: y", b"")] * PARTS_MAX), "Content-Disposition"),
    "too many parts": (form((MODEL, b"gpt"), *[('Content-Disposition: form-data; name="a"', b"")] * PARTS_MAX), "than"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_form_that_could_be_read_differently_is_refused_with_the_reason(name: str) -> None:
    body, reason = WRONG[name]
    read = read_form(HEADERS, body)
    assert isinstance(read, BadBody)
    assert reason in read.message


PIECES = st.sampled_from(
    [
        b"--b0undary", b"--", b"\r\n", b"\n", b"\r", b" ", b";", b'"', b"\\", b"=", b":", b"gpt", b"other", b"x: y",
        b'Content-Disposition: form-data; name="model"', b"content-disposition: form-data; name=model",
        b'Content-Disposition: form-data; name="file"; filename="a.mp3"', b'; filename="b"', b"; name=model",
        b"Content-Type: text/plain", b"Content-Transfer-Encoding: base64", b"\r\n\r\n", b"\r\n--b0undary\r\n",
        b"\r\n--b0undary--\r\n", b"\x00", b"\xff",
    ]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good form with pieces put in, taken out or written over."""
    parts = [(MODEL, draw(st.sampled_from([b"gpt", "grüße".encode()]))), (FILE, b"\x00".join(draw(st.lists(PIECES))))]
    body = form(*draw(st.permutations(parts)))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(body)))
        body = body[:begin] + draw(st.one_of(PIECES, st.just(b""))) + body[begin + draw(st.integers(0, 12)) :]
    return body


@given(st.one_of(mutated(), st.lists(PIECES, max_size=20).map(b"".join)))
@example(GOOD)
@example(form((FILE, b"\r\n"), (MODEL, b"gpt")))
def test_other_parsers_read_the_model_that_was_checked(body: bytes) -> None:
    read = read_form(HEADERS, body)
    if isinstance(read, BadBody):
        assert read.message
        return
    for sent, model in ((read.body, read.model), (read.renamed("other"), "other")):
        assert by_python_multipart(HEADERS, sent) == [model.encode()]
        assert by_email(HEADERS, sent) == [model.encode()]
        assert good(sent).model == model


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_no_bytes_raise(content_type: bytes, body: bytes) -> None:
    headers: list[tuple[bytes, Any]] = [(b"content-type", b"multipart/" + content_type)]
    assert isinstance(read_form(headers, body), FormFields | BadBody)
    assert isinstance(read_form(HEADERS, body), FormFields | BadBody)


@pytest.mark.parametrize("filler", [" ", "\t", "; a=b", ' ; a="b"', "\\", '"'])
@pytest.mark.parametrize("start", ["x:", "Content-Disposition:", MODEL])
def test_a_header_line_takes_no_longer_than_its_length(start: str, filler: str) -> None:
    """With its length squared each took half a second, and this many would be ended by the time that a test has."""
    body = form((start + filler * ((PART_HEAD_MAX_BYTES - 100) // len(filler)) + "\x00", b"gpt"))
    for _ in range(500):
        assert isinstance(read_form(HEADERS, body), BadBody)
