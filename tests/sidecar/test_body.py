"""What is read of a body is what every other parser reads of what goes on."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_sidecar.pipeline.body import BadBody, RequestFields, read_fields, rename_model, with_usage_asked_for

NAMES = st.sampled_from(["model", "Model", "MODEL", "stream", "messages", "user", 'with "model" inside', "mödel"])
MODELS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.just('"model"')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def spelled(name: str, escaped: bool) -> str:
    """A name as JSON text, perhaps with its first letter as an escape."""
    return f'"\\u{ord(name[0]):04x}{json.dumps(name)[2:]}' if escaped else json.dumps(name, ensure_ascii=False)


FIELDS = st.lists(st.tuples(NAMES, st.booleans(), st.one_of(VALUES, MODELS)), max_size=8)


@given(FIELDS, MODELS, st.integers(0, 8), st.booleans())
def test_other_parsers_read_the_model_that_was_checked(
    fields: list[tuple[str, bool, Any]], model: str, place: int, ascii_only: bool
) -> None:
    fields = [(name, escaped, value) for name, escaped, value in fields if name not in ("model", "stream")]
    fields.insert(min(place, len(fields)), ("model", False, model))
    inner = ", ".join(
        f"{spelled(name, escaped)}: {json.dumps(value, ensure_ascii=ascii_only)}" for name, escaped, value in fields
    )
    body = f"{{ {inner} }}".encode()
    read = read_fields(body)
    if isinstance(read, BadBody):
        assert not model.isprintable()
        return
    assert read.model == model
    pairs: list[tuple[str, Any]] = json.loads(read.body, object_pairs_hook=lambda pairs: pairs)
    assert [value for name, value in pairs if name.lower() == "model"] == [model]  # also to a parser like Go's
    wanted = {name: value for name, _, value in fields if name.lower() != "model"}
    assert {name: value for name, value in json.loads(read.body).items() if name != "model"} == wanted
    renamed = json.loads(rename_model(read.body, "other"))
    assert renamed == {**wanted, "model": "other"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt","messages":[]}',
        b' {\n "messages" : [ 1.0, 1e3, 12345678901234567890 ], "model" : "gpt" } \n',
        '{"user":"grüße","model":"gpt"}'.encode(),
    ],
)
def test_a_plain_body_goes_on_byte_for_byte(body: bytes) -> None:
    read = read_fields(body)
    assert isinstance(read, RequestFields)
    assert (read.model, read.stream, read.body) == ("gpt", False, body)
    read = read_fields(body)
    assert isinstance(read, RequestFields)
    assert read.body is body


@given(st.binary(max_size=64))
def test_no_bytes_raise(body: bytes) -> None:
    assert isinstance(read_fields(body), RequestFields | BadBody)


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7, "max_tokens": 9}, 7),
        ({"max_output_tokens": 7, "n": 3}, 21),
        ({"max_tokens": "seven"}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": 1.5}, None),
        ({"max_tokens": 10**30}, None),
        ({"max_tokens": 7, "n": {}}, 7),
    ],
)
def test_what_bounds_the_answer_is_read_and_its_type_is_for_the_upstream_to_judge(
    fields: dict[str, Any], most: int | None
) -> None:
    read = read_fields(json.dumps({"model": "gpt", **fields}).encode())
    assert isinstance(read, RequestFields)
    assert read.max_output == most


@pytest.mark.parametrize(
    ("options", "asked", "sent"),
    [
        (None, False, {"include_usage": True}),
        ({}, False, {"include_usage": True}),
        ({"include_usage": False, "other": 1}, False, {"include_usage": True, "other": 1}),
        ({"include_usage": True}, True, None),
        ("junk", True, None),
        ({"include_usage": "junk"}, True, None),
    ],
)
def test_usage_is_asked_for_where_the_client_did_not(options: Any, asked: bool, sent: Any) -> None:
    body = json.dumps({"model": "gpt", "stream": True, "stream_options": options, "messages": [1.0]}).encode()
    read = read_fields(body)
    assert isinstance(read, RequestFields)
    assert read.include_usage is asked
    if not asked:
        changed = with_usage_asked_for(body)
        assert json.loads(changed) == {"model": "gpt", "stream": True, "stream_options": sent, "messages": [1.0]}
        assert b"[1.0]" in changed
