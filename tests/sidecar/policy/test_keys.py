"""Keys: from Secret entries and headers to clients, and no key anywhere on the way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmroute_sidecar.policy.keys import (
    KEY_MAX_BYTES,
    KEYS_PER_CLIENT,
    Ambiguous,
    Client,
    KeyRing,
    may_use,
    parse_keys,
    presented_key,
)


def client(
    name: str = "web", route: str = "chat", models: tuple[str, ...] | None = None, until: float | None = None
) -> Client:
    return Client(name, route, models, until)


# -- a Secret's entry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (b"", ()),
        (b"one", (b"one",)),
        (b"one\n", (b"one",)),
        (b"one\ntwo\n", (b"one", b"two")),
        (b"one\r\ntwo\r\n", (b"one", b"two")),
        (b"  one \t\n\n \n two", (b"one", b"two")),
        (b"# old, until Friday\none\n  # new\ntwo", (b"one", b"two")),
        (b"has#inside", (b"has#inside",)),
        (b"two words", (b"two words",)),
        (b"\xff\x00binary", (b"\xff\x00binary",)),
        (b"a" * KEY_MAX_BYTES, (b"a" * KEY_MAX_BYTES,)),
        (b"a" * (KEY_MAX_BYTES + 1) + b"\nshort", (b"short",)),
    ],
)
def test_an_entry_holds_one_key_a_line(content: bytes, keys: tuple[bytes, ...]) -> None:
    assert parse_keys(content) == keys


def test_an_entry_holds_only_so_many_keys() -> None:
    assert parse_keys(b"\n".join(b"key%d" % number for number in range(1000)))[-1] == b"key%d" % (KEYS_PER_CLIENT - 1)


@given(st.binary(max_size=2000))
@settings(max_examples=500, deadline=None)
def test_any_entry_gives_usable_keys(content: bytes) -> None:
    keys = parse_keys(content)
    assert len(keys) <= KEYS_PER_CLIENT
    assert all(key and key == key.strip() and not key.startswith(b"#") and key in content for key in keys)
    assert parse_keys(b"\n".join(keys)) == keys


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x_api_key", "authorization", "key"),
    [
        ([], [], None),
        ([b"one"], [], b"one"),
        ([b"  one\t"], [], b"one"),
        ([], [b"Bearer one"], b"one"),
        ([], [b"bearer one"], b"one"),
        ([], [b" BEARER   one  "], b"one"),
        ([], [b"Bearer"], None),
        ([], [b"Bearer  "], None),
        ([], [b""], None),
        ([], [b"Basic b25l"], None),
        ([], [b"one"], None),
        ([], [b"Bearerone"], None),
        ([b""], [], None),
        ([b""], [b"Bearer one"], b"one"),
        ([b"one"], [b"Bearer"], b"one"),
        ([b"one"], [b"Basic b25l"], b"one"),
        ([b"one"], [b"Bearer one"], b"one"),
        ([b"one", b"one "], [b"Bearer one", b"bearer  one"], b"one"),
        ([b"one"], [b"Bearer two"], Ambiguous()),
        ([b"one", b"two"], [], Ambiguous()),
        ([b"one", b""], [], Ambiguous()),
        ([], [b"Bearer one", b"Bearer two"], Ambiguous()),
        ([], [b"Bearer one", b"Basic b25l"], Ambiguous()),
        ([b"one"], [b"Bearer one", b"Bearer two"], Ambiguous()),
    ],
)
def test_the_key_that_headers_present(
    x_api_key: list[bytes], authorization: list[bytes], key: bytes | Ambiguous | None
) -> None:
    assert presented_key(x_api_key, authorization) == key


HEADERS = st.lists(
    st.binary(max_size=12) | st.sampled_from([b"Bearer a", b"bearer a", b"Bearer b", b"a", b"b"]), max_size=3
)


@given(HEADERS, HEADERS)
@settings(max_examples=500, deadline=None)
def test_any_headers_present_one_key_that_all_of_them_say_or_none(
    x_api_key: list[bytes], authorization: list[bytes]
) -> None:
    found = presented_key(x_api_key, authorization)
    assert found == presented_key(x_api_key[::-1], authorization[::-1]), "the order of headers decides nothing"
    if isinstance(found, bytes):
        assert found
        assert {value.strip() for value in x_api_key} <= {found, b""}
        assert all(found in value for value in authorization if value[:7].lower() == b"bearer " and value[7:].strip())


# -- the ring ----------------------------------------------------------------------------------------------------------

KEYS = st.binary(min_size=1, max_size=40)


@given(st.dictionaries(KEYS, st.lists(st.sampled_from(["chat", "code", "mail"]), min_size=1, max_size=4)), KEYS)
@settings(max_examples=300, deadline=None)
def test_a_key_finds_its_clients_and_no_other_key_does(routes_of: dict[bytes, list[str]], other: bytes) -> None:
    ring = KeyRing.build(
        [(key, client(f"c{i}", route)) for i, (key, routes) in enumerate(routes_of.items()) for route in routes]
    )
    for i, (key, routes) in enumerate(routes_of.items()):
        assert [(found.name, found.route) for found in ring.find(key)] == [
            (f"c{i}", route) for route in dict.fromkeys(routes)
        ]
        assert ring.find(key + b"\0") == () or key + b"\0" in routes_of
    assert (ring.find(other) != ()) == (other in routes_of)


def test_in_one_route_the_first_client_has_a_key_that_two_claim() -> None:
    ring = KeyRing.build([(b"same", client("first")), (b"same", client("second")), (b"same", client("third", "code"))])
    assert [found.name for found in ring.find(b"same")] == ["first", "third"]


def test_an_empty_ring_knows_nobody() -> None:
    assert KeyRing.build([]).find(b"") == ()


def test_no_key_is_kept_anywhere_in_the_ring() -> None:
    secret = b"sk-very-secret"
    ring = KeyRing.build([(secret, client())])
    assert "secret" not in repr(ring) + str(ring)
    assert repr(ring) == "KeyRing(1 keys)"
    held = repr([getattr(ring, name) for name in KeyRing.__slots__])
    assert "secret" not in held


# -- what a client may use ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "until", "model", "verdict"),
    [
        (None, None, "gpt-4o", "yes"),
        (("gpt-4o", "llama*"), None, "gpt-4o", "yes"),
        (("gpt-4o", "llama*"), None, "llama-70b", "yes"),
        (("gpt-4o", "llama*"), None, "gpt-4o-mini", "model_not_allowed"),
        (("*",), None, "anything", "yes"),
        ((), None, "gpt-4o", "model_not_allowed"),
        (None, 1000.1, "gpt-4o", "yes"),
        (None, 1000.0, "gpt-4o", "expired"),
        (("llama*",), 999.0, "gpt-4o", "expired"),
    ],
)
def test_what_a_client_may_use(models: tuple[str, ...] | None, until: float | None, model: str, verdict: str) -> None:
    assert may_use(client(models=models, until=until), model, 1000.0) == verdict
