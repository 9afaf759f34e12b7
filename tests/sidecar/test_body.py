"""What is read of a body is what every other parser reads of what goes on."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmroute_sidecar.pipeline.body import (
    FIELDS_MAX,
    BadBody,
    RequestFields,
    read_fields,
    rename_model,
    with_usage_asked_for,
)

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


SPACE = st.sampled_from(["", " ", "\n\t "])
ESCAPED = st.lists(st.booleans(), min_size=5, max_size=5)


def written(value: Any, space: str, escapes: list[bool]) -> str:
    """A value as JSON text, in which letters of names are escapes as said, and some texts end in an escaped quote."""
    match value:
        case dict():
            names = [
                "".join(f"\\u{ord(c):04X}" if e else c for c, e in zip(n, escapes, strict=False)) + n[5:] for n in value
            ]
            inner = (
                f'{space}"{n}"{space}:{written(v, space, escapes)}' for n, v in zip(names, value.values(), strict=True)
            )
            return "{" + ",".join(inner) + space + "}"
        case list():
            return "[" + ",".join(written(one, space, escapes) for one in value) + "]"
        case _:
            return space + json.dumps(value, ensure_ascii=escapes[0])


PLAIN_NAMES = st.sampled_from(["model", "Model", "models", "stream_options", "messages", "é"])
NESTED: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, 1.5, "model", 'so "model', '"model": "x"', "\\", "mod\u00e9l", ":{,}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN_NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["messages", "tools", "é", "n"]), NESTED), SPACE, ESCAPED, MODELS, st.integers(0, 3)
)
def test_a_renamed_body_is_the_same_but_for_the_model(
    fields: dict[str, Any], space: str, escapes: list[bool], model: str, place: int
) -> None:
    items = list(fields.items())
    items.insert(place, ("model", model))
    body = written(dict(items), space, escapes).encode()
    read = read_fields(body)
    if isinstance(read, BadBody):
        assert not model.isprintable()
        return
    assert json.loads(read.body) == dict(items)
    for other in ("other", 'with "quotes" \\ and é'):
        renamed = rename_model(read.body, other)
        assert list(json.loads(renamed).items()) == [(n, other if n == "model" else v) for n, v in items]
        again = read_fields(renamed)
        assert isinstance(again, RequestFields)
        assert again.model == other


@pytest.mark.parametrize(
    ("body", "renamed"),
    [
        (
            b'{"model":"gpt","n":[{"x":"\\u00e9\\u0041"}], "m" : 1 }',
            b'{"model":"o","n":[{"x":"\\u00e9\\u0041"}], "m" : 1 }',
        ),
        (b' {"n": 1.0,\r\n "model" :\t"gpt" , "x": {}}\n', b' {"n": 1.0,\r\n "model" :\t"o" , "x": {}}\n'),
        (b'{ "n": 1.0, "model": "g\\"p", "x" : "}" }', b'{"n":1.0,"model":"o","x":"}"}'),
        (b'{ "x": {"Model" : 1}, "model": "gpt"}', b'{"x":{"Model" : 1},"model":"o"}'),
        (b'{ "x": {"model" : 1}, "model": "gpt"}', b'{"x":{"model" : 1},"model":"o"}'),
        (b'{"x": "a \\"model", "mod\\u0065l": "gpt"}', b'{"x":"a \\"model","model":"o"}'),
        (b'{"model": "a", "MODEL": "b", "\\u004dodel": "c", "model": "d"}', b'{"model":"o"}'),
    ],
)
def test_renaming_leaves_values_as_they_are_and_most_often_all_else(body: bytes, renamed: bytes) -> None:
    read = read_fields(body)
    assert isinstance(read, RequestFields)
    assert rename_model(read.body, "o") == renamed


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("name", ["%d", "same", "\\u00e9%d"])
def test_a_body_has_a_bounded_number_of_fields_and_their_values_any(name: str, more: int) -> None:
    inner = ",".join(f'"{name % n if "%" in name else name}":{{"a":1,"b":[2]}}' for n in range(FIELDS_MAX - 1 + more))
    read = read_fields(f'{{"model":"gpt",{inner}}}'.encode())
    assert isinstance(read, BadBody) is bool(more)
    if isinstance(read, BadBody):
        assert read.message == f"the body has more than {FIELDS_MAX} fields"
    deep = read_fields(f'{{"model":"gpt","messages":[{{{inner}}}]}}'.encode())
    assert isinstance(deep, RequestFields)
    assert json.loads(rename_model(deep.body, "other"))["model"] == "other"


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
