"""`llmroute validate` and `llmroute compile`, and the example that a newcomer starts with."""

import io
import json
from pathlib import Path

import pytest
import yaml

from llmroute_contract import compiled as c
from llmroute_sidecar.config.directory import DirectorySource
from llmroute_sidecar.config.manifests import ManifestSource
from llmroute_sidecar.config.reload import Reloader
from llmroute_sidecar.config.validate import run_compile, run_validate, validate

EXAMPLES = Path(__file__).parents[3] / "examples"
QUICKSTART = EXAMPLES / "quickstart.yaml"

BROKEN = """\
apiVersion: llmroute.dev/v1alpha1
kind: LLMRoute
metadata:
  name: chat
spec:
  auth:
    mode: None
  upstreams:
  - name: a
    url: ftp://a
  - name: b
    url: mock://local
    breaker: {maxFailures: 0}
    colour: blue
  models:
  - name: m
    targets:
    - upstream: b
"""
GOOD = (
    BROKEN.replace("ftp://a", "mock://a").replace("maxFailures: 0", "maxFailures: 1").replace("    colour: blue\n", "")
)


def output_of_validate(output: str, *paths: Path) -> tuple[int, str]:
    out = io.StringIO()
    return run_validate(paths, "json" if output == "json" else "text", out), out.getvalue()


def test_each_problem_is_told_with_file_line_and_field(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(BROKEN)
    code, text = output_of_validate("text", file)
    lines = text.splitlines()
    assert code == 1
    assert lines[0].startswith(f"{file}:10: spec.upstreams[0].url: ")
    assert lines[1].startswith(f"{file}:13: spec.upstreams[1].breaker.maxFailures: ")
    assert lines[2].startswith(f"{file}:14: spec.upstreams[1].colour: is not a field")
    assert lines[3] == "3 problems"


@pytest.mark.parametrize(
    ("good", "wrong", "told"),
    [
        ("    breaker:", "    braker:", "spec.upstreams[1].braker: is not a field; did you mean breaker?"),
        (
            "    colour:",
            "    x:",
            "spec.upstreams[1].x: is not a field; there are name, url, protocol, credential, tls,",
        ),
        ("maxFailures: 0", 'maxFailures: "5"', "must be a whole number, not a text; leave the quotes out"),
        ("- name: b\n", "- name: B\n", "lower-case letters, digits and '-' between them"),
        ("{maxFailures: 0}", "5", "must be a map of fields, not the number 5"),
        ("{maxFailures: 0}", "five", "not a text; its fields are maxFailures, reset, scope"),
        ("- upstream: b", "- b", "not a text; its fields are upstream, model, weight"),
    ],
)
def test_a_mistake_is_told_with_what_was_most_likely_meant(tmp_path: Path, good: str, wrong: str, told: str) -> None:
    assert good in BROKEN
    file = tmp_path / "x.yaml"
    file.write_text(BROKEN.replace(good, wrong))
    assert told in output_of_validate("text", file)[1]


def test_json_output_says_the_same_for_programs(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(BROKEN)
    code, text = output_of_validate("json", file)
    answer = json.loads(text)
    assert code == 1
    assert answer["valid"] is False
    assert [problem["line"] for problem in answer["problems"]] == [10, 13, 14]
    assert answer["problems"][2]["field"] == "spec.upstreams[1].colour"


def test_inactive_fields_and_other_kinds_are_notes_that_do_not_fail(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    limits = "  limits:\n  - {name: t, per: Model, tokens: 5, scope: Gateway}\n"
    file.write_text(f"{GOOD}{limits}---\napiVersion: v1\nkind: Service\n")
    found = validate([file])
    assert found.problems == ()
    assert [note.line for note in found.notes] == [19, 21]
    assert "kind Service" in found.notes[1].message
    assert output_of_validate("text", file)[0] == 0


@pytest.mark.parametrize("content", ["", "# nothing\n", "apiVersion: v1\nkind: Service\n", "\x00", "a: [\n"])
def test_files_without_a_route_are_not_valid(tmp_path: Path, content: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(content)
    assert output_of_validate("text", file)[0] == 1


def test_a_file_that_is_not_there_is_told() -> None:
    assert output_of_validate("text", Path("/nowhere/x.yaml")) == (
        1,
        "/nowhere/x.yaml: there is no such file\n1 problem\n",
    )


def compiled(*paths: Path, directory: Path | None = None, gateway: str | None = None) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = run_compile(paths, gateway, None, directory, out, err)
    return code, out.getvalue(), err.getvalue()


def test_the_printed_configmap_holds_the_very_files() -> None:
    code, text, _ = compiled(QUICKSTART)
    (configmap,) = yaml.safe_load_all(text)
    assert code == 0
    assert configmap["kind"] == "ConfigMap"
    assert configmap["metadata"] == {"name": "llmroute-gateway-default", "namespace": "default"}
    files = ManifestSource([QUICKSTART]).read().files
    assert {name: data.encode() for name, data in configmap["data"].items()} == dict(files)


def test_each_gateway_has_its_configmap(tmp_path: Path) -> None:
    other = GOOD.replace("spec:\n", "spec:\n  gateway: other\n").replace("name: chat", "name: second")
    (tmp_path / "x.yaml").write_text(f"{GOOD}---\n{other}")
    _, text, _ = compiled(tmp_path)
    names = [configmap["metadata"]["name"] for configmap in yaml.safe_load_all(text)]
    assert names == ["llmroute-gateway-default", "llmroute-gateway-other"]
    _, text, _ = compiled(tmp_path, gateway="other")
    assert yaml.safe_load(text)["metadata"]["name"] == "llmroute-gateway-other"


def test_nothing_is_written_of_a_route_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(BROKEN)
    code, out, err = compiled(tmp_path / "x.yaml", directory=tmp_path / "out")
    assert (code, out) == (1, "")
    assert "x.yaml:10: spec.upstreams[0].url" in err
    assert not (tmp_path / "out").exists()


def test_the_written_directory_is_served_and_gone_routes_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    second = GOOD.replace("name: chat", "name: second").replace("name: m", "name: n")
    (tmp_path / "x.yaml").write_text(f"{GOOD}---\n{second}")
    assert compiled(tmp_path / "x.yaml", directory=out)[0] == 0
    reloader = Reloader(DirectorySource(out, tmp_path / "no-secrets"))
    first = reloader.tick()
    assert first is not None
    assert first.snapshot is not None
    assert first.snapshot.model_names == {"m", "n"}
    (tmp_path / "x.yaml").write_text(GOOD)
    assert compiled(tmp_path / "x.yaml", directory=out)[0] == 0
    assert sorted(path.name for path in out.iterdir()) == [c.GATEWAY_FILE, "route.chat.json"]
    reload = reloader.tick()
    assert reload is not None
    assert reload.snapshot is not None
    assert reload.snapshot.model_names == {"m"}


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid(example: Path) -> None:
    assert validate([example]).problems == ()


def test_the_quickstart_shows_a_fallback_a_limit_and_a_key() -> None:
    reload = Reloader(ManifestSource([QUICKSTART])).tick()
    assert reload is not None
    snapshot = reload.snapshot
    assert snapshot is not None
    assert snapshot.missing_secrets == ()
    assert [candidate.model for candidate in snapshot.models.plan("shaky").candidates] == ["shaky", "chat"]
    assert snapshot.keys.find(b"dev-key")[0].name == "app"
    (limit,) = snapshot.routes["quickstart"].limits
    assert (limit.per, limit.requests) == ("Model", 20)
