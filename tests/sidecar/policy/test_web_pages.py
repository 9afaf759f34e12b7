"""Whom a listener on loopback answers to, and which calls are another site's."""

import pytest

from llmroute_sidecar.policy.web_pages import LocalHosts, is_loopback, is_of_another_site

OURS = [
    "localhost",
    "localhost:8790",
    "LocalHost:8790",
    "localhost.:8790",
    "localhost:",
    "app.localhost:3000",
    "127.0.0.1:8790",
    "127.0.0.2",
    "0.0.0.0:8790",
    "10.1.2.3:8791",
    "[::1]:8790",
    "[::1]",
    "[fd00::7]:8791",
    "host.docker.internal:8790",
    "",
]
OTHERS = [
    "evil.example",
    "evil.example:8790",
    "localhost.evil.example",
    "localhost.evil.example:8790",
    "evillocalhost",
    "127.0.0.1.evil.example",
    "127.0.0.1:8790.evil.example",
    "127.0.0.1:8790@evil.example",
    "127-0-0-1.nip.io:8790",
    "[::1].evil.example",
    "[::1]evil",
    "[evil.example]:8790",
    "localhost:80:evil",
    "localhost:٣",
    "evil.internal",
    ".",
    "llm.corp:8790",
]


@pytest.mark.parametrize("host", OURS)
def test_this_machines_names_and_addresses_are_answered_to(host: str) -> None:
    hosts = LocalHosts()
    assert [hosts.answer_to(host.encode()) for _ in range(2)] == [True, True]


@pytest.mark.parametrize("host", OTHERS)
def test_a_name_that_somebody_could_own_is_not_answered_to(host: str) -> None:
    hosts = LocalHosts(["other.corp"])
    assert [hosts.answer_to(host.encode()) for _ in range(2)] == [False, False]


def test_a_name_that_was_added_is_answered_to_and_none_below_it() -> None:
    hosts = LocalHosts(["LLM.corp"])
    answered = [hosts.answer_to(host) for host in (b"llm.corp:8790", b"LLM.CORP", b"x.llm.corp", b"corp")]
    assert answered == [True, True, False, False]


def test_names_are_remembered_up_to_a_bound() -> None:
    hosts = LocalHosts()
    assert all(hosts.answer_to(b"%d.localhost" % number) for number in range(1000))
    assert len(hosts._known) == 64


def test_a_loopback_address_is_told_from_others() -> None:
    assert [is_loopback(one) for one in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1")] == [True] * 4
    assert [is_loopback(one) for one in ("0.0.0.0", "10.0.0.1", "::", "::ffff:10.0.0.1", "localhost", "")] == [
        False
    ] * 6


HERE = "127.0.0.1:8790"
CALLS: list[tuple[str, str | None, str | None, str, str | None, bool]] = [
    # who calls; Origin; Sec-Fetch-Site; Host; Content-Type; is it another site's
    ("an SDK", None, None, HERE, "application/json", False),
    ("curl", None, None, HERE, "application/x-www-form-urlencoded", False),
    ("a form of another site", "https://evil.example", "cross-site", HERE, "text/plain", True),
    ("a script without a type", "https://evil.example", "cross-site", HERE, None, True),
    ("a file's form", "https://evil.example", "cross-site", HERE, "multipart/form-data; boundary=x", True),
    ("a type that hides its own", "https://evil.example", "cross-site", HERE, "text/plain; application/json", True),
    ("a type twice over", "https://evil.example", "cross-site", HERE, "application/json, text/plain", True),
    ("an old browser", "https://evil.example", None, HERE, "text/plain", True),
    ("a sandboxed frame", "null", "cross-site", HERE, "text/plain", True),
    ("a sandboxed frame, old", "null", None, HERE, "text/plain", True),
    ("no origin, other site", None, "cross-site", HERE, "text/plain", True),
    ("a neighbour of the site", "https://b.corp.example", "same-site", "a.corp.example", "text/plain", True),
    ("a name that begins so", "http://localhost.evil.example", "cross-site", HERE, "text/plain", True),
    ("an address that begins so", "http://127.0.0.1.evil.example:80", "cross-site", HERE, "text/plain", True),
    ("another machine", "http://192.168.1.7:3000", "cross-site", HERE, "text/plain", True),
    ("asked first", "https://evil.example", "cross-site", HERE, "application/json; charset=utf-8", False),
    ("a page under development", "http://localhost:3000", "same-site", "localhost:8790", "text/plain", False),
    ("by its address", "http://localhost:3000", "cross-site", HERE, "text/plain", False),
    ("IPv6", "http://[::1]:3000", "cross-site", HERE, "text/plain", False),
    ("a subdomain", "https://ui.localhost", "cross-site", HERE, "text/plain", False),
    ("a desktop program", "app://chat", "cross-site", HERE, "text/plain", False),
    ("an editor", "vscode-webview://0a1b", "cross-site", HERE, "text/plain", False),
    ("a page of the same server", "https://ui.corp", "same-origin", HERE, "multipart/form-data; boundary=x", False),
    ("the same, old", "http://ui.corp:8080", None, "UI.corp:8080", "text/plain", False),
    ("the address bar", "null", "none", HERE, "text/plain", False),
]


@pytest.mark.parametrize("call", CALLS, ids=[call[0] for call in CALLS])
def test_a_call_is_another_sites_where_a_browser_says_so(
    call: tuple[str, str | None, str | None, str, str | None, bool],
) -> None:
    _, origin, fetch_site, host, content_type, another = call
    values = [[] if value is None else [value.encode()] for value in (origin, fetch_site, host, content_type)]
    assert is_of_another_site(*values) is another
