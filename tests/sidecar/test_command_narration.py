"""The words that `llmroute run` says, without a process: which call to try, which key to show, what is told once."""

import io
import json
import shlex
from pathlib import Path

import pytest

from llmroute_sidecar.config.manifests import ManifestSource
from llmroute_sidecar.config.reload import Reloader
from llmroute_sidecar.narration import MODELS_TOLD, Narrator
from llmroute_sidecar.process import Listening

HEAD = "apiVersion: llmroute.dev/v1alpha1\nkind: LLMRoute\nmetadata: {name: chat}\nspec:\n"
KEYS = "  auth: {mode: Keys, keysFrom: {secretRef: {name: clients}}"
MOCK = '  upstreams: [{name: up, url: "mock://local"}]\n'


def secret(**keys: str) -> str:
    entries = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in keys.items())
    return f"---\napiVersion: v1\nkind: Secret\nmetadata: {{name: clients}}\nstringData:\n{entries}"


def models(*names: str) -> str:
    return "  models:\n" + "".join(f"  - {{name: {json.dumps(name)}, targets: [{{upstream: up}}]}}\n" for name in names)


def told(folder: Path, text: str, host: str = "127.0.0.1") -> str:
    """What a person hears who runs `text`."""
    (folder / "a.yaml").write_text(text)
    source = ManifestSource([folder / "a.yaml"])
    out = io.StringIO()
    narrator = Narrator(out, lambda: source.given_secrets, clock=lambda: 1.8e9, notes=lambda: source.notes)
    reload = Reloader(source).tick()
    assert reload is not None
    narrator.reloaded(reload)
    narrator.listening(Listening(host, 8790, "127.0.0.1", 8791))
    return out.getvalue()


def curl(text: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith("  try ")]
    return shlex.split(line)[1:]


def test_upstreams_that_need_litellm_are_told_where_there_is_none(tmp_path: Path) -> None:
    text = f"{HEAD}  auth: {{mode: None}}\n{MOCK.replace('mock://local', 'litellm://gemini')}{models('m')}"
    assert "litellm, for the upstreams chat/up\n           run `make litellm`, " in told(tmp_path, text)


def test_what_is_served_and_acts_otherwise_than_it_seems_to_is_told(tmp_path: Path) -> None:
    url = "https://api.example/v1/chat/completions"
    text = f"{HEAD}  auth: {{mode: None}}\n{MOCK.replace('mock://local', url)}{models('m')}"
    assert f"  note     {tmp_path}/a.yaml:6: spec.upstreams[0].url: ends with /chat/completions" in told(tmp_path, text)


def test_the_call_names_a_model_and_a_key_that_may_have_it(tmp_path: Path) -> None:
    clients = ", clients: [{name: b-app, models: [other]}, {name: a-app, expiresAt: 2020-01-01T00:00:00Z}]}\n"
    text = HEAD + KEYS + clients + MOCK + models("m", "other")
    keys = secret(**{"a-app": "old", "b-app": "narrow", "c-app": "# a comment\nkey's $1\n"})
    arguments = curl(told(tmp_path, text + keys))
    assert arguments[-1] == "authorization: Bearer key's $1"
    assert json.loads(arguments[arguments.index("-d") + 1])["model"] == "m"


@pytest.mark.parametrize(
    ("names", "extra", "model"),
    [
        (["b", "a"], "", "a"),
        (["gpt-4*"], "", "gpt-4"),
        (["*"], "", "any-model"),
        ([], "  defaultUpstream: up\n", "any-model"),
    ],
)
def test_the_call_names_a_model_that_is_served(tmp_path: Path, names: list[str], extra: str, model: str) -> None:
    text = f"{HEAD}  auth: {{mode: None}}\n{MOCK}{models(*names) if names else ''}{extra}"
    arguments = curl(told(tmp_path, text))
    assert json.loads(arguments[arguments.index("-d") + 1])["model"] == model
    assert "authorization" not in " ".join(arguments)


def test_a_key_stays_unsaid_where_anything_but_a_mock_is_behind_it(tmp_path: Path) -> None:
    upstreams = '  upstreams: [{name: up, url: "mock://local"}, {name: real, url: "https://provider.example/v1"}]\n'
    text = told(tmp_path, HEAD + KEYS + "}\n" + upstreams + models("m") + secret(app="hush"))
    assert "hush" not in text
    assert "authorization: Bearer $KEY" in text


def test_long_lists_of_models_are_cut(tmp_path: Path) -> None:
    names = [f"m-{index:02}" for index in range(MODELS_TOLD + 3)]
    text = told(tmp_path, f"{HEAD}  auth: {{mode: None}}\n{MOCK}{models(*names)}")
    assert f"{names[MODELS_TOLD - 1]} and 3 more" in text
    assert names[MODELS_TOLD] not in text


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8790/v1"),
        ("0.0.0.0", "http://127.0.0.1:8790/v1"),
        ("::", "http://[::1]:8790/v1"),
        ("gateway.example", "http://gateway.example:8790/v1"),
    ],
)
def test_an_address_that_can_be_called_is_told(tmp_path: Path, host: str, address: str) -> None:
    assert f"serving {address} " in told(tmp_path, f"{HEAD}  auth: {{mode: None}}\n{MOCK}{models('m')}", host)


def test_a_terminal_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    closed = io.StringIO()
    closed.close()
    for out in (Gone(), closed):
        narrator = Narrator(out, lambda: ManifestSource([]).given_secrets)
        narrator.listening(Listening("127.0.0.1", 1, "127.0.0.1", 2))
        narrator.draining(1)
