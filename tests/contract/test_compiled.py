"""The compiled files: their bytes, their revision, and what is no such file."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_contract import compiled as c
from llmroute_contract.compile import RouteSource, compile_gateway
from llmroute_contract.llmroute import LLMRoute, parse_route
from tests.contract.routes import BEGINNING, full_route, model, source

GOLDEN = Path(__file__).parent / "golden"


def full_files() -> dict[str, bytes]:
    route = parse_route(full_route())
    assert isinstance(route, LLMRoute)
    source = RouteSource("chat", route.spec, 3, BEGINNING)
    return dict(compile_gateway("shop", "default", [source], {"gpt-4o": ("2.5", "10")}).files)


def a_route() -> c.CompiledRoute:
    return c.decode(full_files()["route.chat.json"], c.CompiledRoute)


@pytest.mark.parametrize("name", ["route.chat.json", "gateway.json"])
def test_the_full_route_compiles_to_the_golden_file(name: str) -> None:
    """The golden file is indented for people. A change to it is a change of format: see SCHEMA_VERSION."""
    assert json.loads(full_files()[name]) == json.loads((GOLDEN / name).read_text())


def test_bytes_are_canonical() -> None:
    for data in full_files().values():
        value = json.loads(data)
        assert data == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def test_equal_values_have_equal_bytes_however_they_were_written() -> None:
    one = source("r", [model("a")], limits=[{"name": "l", "per": "Model", "requests": 1, "window": "1m30s"}])
    other = source(
        "r", [model("a")], limits=[{"window": "90s", "requests": 1, "per": "Model", "name": "l", "scope": "Pod"}]
    )
    assert compile_gateway("n", "g", [one]).files == compile_gateway("n", "g", [other]).files


def test_the_revision_changes_with_a_route_its_order_and_nothing_else() -> None:
    def revision(*sources: RouteSource) -> str:
        return compile_gateway("n", "g", sources).revision

    a, b = source("a", [model("a")], age=2), source("b", [model("b")], age=1)
    assert revision(a, b) == revision(b, a)
    assert (
        len({revision(), revision(a), revision(b), revision(a, b), revision(a, source("b", [model("b")], age=3))}) == 5
    )
    assert len(revision(a)) == 16


def test_no_secret_is_in_the_files_but_its_name() -> None:
    text = full_files()["route.chat.json"].decode()
    assert json.loads(text)["upstreams"][0]["credential"] == {"name": "openai", "key": "api-key"}


def test_an_older_gateway_reads_what_a_newer_operator_has_added() -> None:
    value = json.loads(full_files()["route.chat.json"])
    value["colour"] = "blue"
    value["upstreams"][0]["shape"] = {"round": True}
    assert c.decode(json.dumps(value).encode(), c.CompiledRoute) == a_route()


def _with(**changes: object) -> bytes:
    return json.dumps({**json.loads(full_files()["route.chat.json"]), **changes}).encode()


UNREADABLE = {
    "nothing": (b"", "truncated"),
    "half a file": (full_files()["route.chat.json"][:200], "truncated"),
    "no JSON": (b"<html>", "malformed"),
    "not UTF-8": (b'{"schemaVersion": 1, "name": "\xff"}', "utf-8"),
    "a list": (b"[]", "Expected `object`, got `array`"),
    "nested 100,000 deep": (b'{"schemaVersion": 1, "x": ' + b"[" * 100_000, "nested too deep"),
    "no version": (b"{}", "schemaVersion"),
    "another version": (_with(schemaVersion=2), "schemaVersion 2 is not 1, which this gateway reads"),
    "a version that is a text": (_with(schemaVersion="1"), "schemaVersion"),
    "a field missing": (b'{"schemaVersion": 1}', "missing required field `name`"),
    "a generation that is a text": (_with(generation="3"), "$.generation"),
    "a timeout of zero": (
        _with(upstreams=[{**json.loads(_with())["upstreams"][0], "connectTimeout": 0}]),
        "connectTimeout",
    ),
    "a time without its zone": (
        _with(
            auth={
                "mode": "Keys",
                "keysSecret": "k",
                "clients": [{"name": "w", "models": None, "expiresAt": "2027-01-01T00:00:00"}],
            }
        ),
        "$.auth.clients[0].expiresAt",
    ),
    "a model that goes nowhere": (
        _with(models=[{**json.loads(_with())["models"][0], "targets": []}]),
        "$.models[0].targets",
    ),
    "an unknown mode": (_with(auth={"mode": "Basic", "keysSecret": None, "clients": []}), "$.auth.mode"),
}


@pytest.mark.parametrize(("data", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_said_to_be_so(data: bytes, words: str) -> None:
    with pytest.raises(c.Unreadable) as refused:
        c.decode(data, c.CompiledRoute)
    assert words in str(refused.value)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.tuples(st.integers(0, 600), st.binary(max_size=4))))
def test_any_bytes_are_a_route_or_unreadable(noise: bytes | tuple[int, bytes]) -> None:
    if isinstance(noise, tuple):
        place, put_in = noise
        whole = full_files()["route.chat.json"]
        noise = whole[:place] + put_in + whole[place + len(put_in) :]
    try:
        c.decode(noise, c.CompiledRoute)
    except c.Unreadable as error:
        assert str(error)  # noqa: PT017 - both outcomes are right


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://a", "the url of upstream 'openai' must begin with http://"),
        ("https://a.example[::1]", "the url of upstream 'openai' must name a host"),
        ("mock://local?x=1", "the url of upstream 'openai' has no parameter 'x'"),
    ],
)
def test_a_url_from_another_hand_than_the_compilers_is_checked_again(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        c.check_url(msgspec.structs.replace(a_route().upstreams[0], url=url))


def test_size_of_is_what_a_route_adds_to_the_files() -> None:
    sources = [source(name, [model(name)], age=age) for age, name in enumerate(["a", "bb", "ccc"])]
    compilation = compile_gateway("n", "g", sources)
    index = c.decode(compilation.files[c.GATEWAY_FILE], c.CompiledGateway)
    files = [compilation.files[entry.file] for entry in index.routes]
    sizes = [c.size_of(c.decode(data, c.CompiledRoute), data) for data in files]
    empty = len(c.encode(c.index_of("n", "g", ())))
    assert sum(map(len, compilation.files.values())) == sum(sizes) + empty - 1, "the last entry has no comma"
