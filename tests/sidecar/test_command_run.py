"""`llmroute run`: what a person is told at the start and at each save, and what is kept from the terminal."""

import json
import socket
from pathlib import Path

import httpx
import pytest
import yaml

from tests.sidecar.local_process import QUICKSTART, llmroute, running, save, started
from tests.waiting import wait_until

pytestmark = pytest.mark.server

ROUTE = """\
apiVersion: llmroute.dev/v1alpha1
kind: LLMRoute
metadata: {{name: {name}}}
spec:
  gateway: {gateway}
  auth: {{mode: Keys, keysFrom: {{secretRef: {{name: clients}}}}}}
  upstreams:
  - name: up
    url: {url}
  models:
  - name: {model}
    targets: [{{upstream: {upstream}}}]
"""
SECRET = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: clients}\nstringData: {app: dev-key}\n"


def route(
    name: str = "chat", model: str = "m", url: str = "mock://local", upstream: str = "up", gateway: str = "default"
) -> str:
    return ROUTE.format(name=name, model=model, url=url, upstream=upstream, gateway=gateway)


def test_each_save_is_told_and_a_bad_one_leaves_the_last_good_version(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    save(file, route() + SECRET)
    with running(tmp_path / "run", "-f", file) as local:
        first = local.status()["revision"]
        assert f"revision {first}" in local.told
        save(file, route(model="n") + SECRET)
        told = local.tells(", with models n")
        second = local.status()["revision"]
        assert second != first
        assert f"revision {second}" in local.told
        assert local.ask("n").status_code == 200

        save(file, "apiVersion: [\n")
        told = local.tells(f"not taken over; revision {second} goes on being served", told)
        assert f"{file}:2: is not YAML" in local.told
        file.unlink()
        told = local.tells(f"{file}: there is no such file", told)
        assert local.ask("n").status_code == 200

        save(file, route(model="n") + SECRET)
        local.tells(f"all is well again; revision {second} is served", told)
        assert local.status()["healthy"]
        assert local.interrupt() == 0
    assert "llmroute: ending" in local.told


def test_a_bad_route_beside_a_good_one_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    save(tmp_path / "a.yaml", route("a", "m"))
    save(tmp_path / "b.yaml", route("b", "n") + SECRET)
    with running(tmp_path / "run", "-f", tmp_path) as local:
        save(tmp_path / "a.yaml", route("a", "changed", upstream="nobody"))
        save(tmp_path / "b.yaml", route("b", "new") + SECRET)
        told = local.tells(", with models m, new")
        place = f"{tmp_path}/a.yaml:12: spec.models[0].targets[0].upstream: no upstream is named 'nobody'"
        assert place in local.told
        assert "the rest is taken over: revision " in local.told
        assert [local.ask(model).status_code for model in ("m", "new", "changed")] == [200, 200, 404]
        save(tmp_path / "a.yaml", route("a", "changed"))
        local.tells(", with models changed, new", told)
        assert local.ask("changed").status_code == 200


def test_files_that_are_bad_from_the_start_are_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    save(file, route(upstream="nobody") + SECRET)
    with started(tmp_path / "run", "-f", file) as local:
        local.tells("nothing is served yet; mend the file and save it")
        assert f"{file}:12: spec.models[0].targets[0].upstream" in local.told
        save(file, route() + SECRET)
        local.tells("Ctrl-C ends.")
        assert local.ask("m").status_code == 200
        assert "Bearer dev-key" in local.curl_line


def test_a_missing_secret_is_told_and_seen_when_it_comes(tmp_path: Path) -> None:
    file, secrets = tmp_path / "a.yaml", tmp_path / "secrets"
    save(file, route())
    with running(tmp_path / "run", "-f", file, "--secrets-dir", secrets) as local:
        local.tells("missing  route chat: spec.auth.keysFrom.secretRef: Secret 'clients' is not there")
        assert local.ask("m").status_code == 401
        (secrets / "clients").mkdir(parents=True)
        (secrets / "clients" / "app").write_text("key-of-a-mounted-secret")
        wait_until(lambda: local.ask("m", "key-of-a-mounted-secret").status_code == 200, "the key to be known")
        local.tells("Secrets are read anew")
        # Of a Secret that stands elsewhere no key is shown, be the upstreams what they may.
        assert "key-of-a-mounted-secret" not in local.told
        assert "$KEY" in local.curl_line


def test_no_key_to_a_real_provider_is_shown(tmp_path: Path) -> None:
    save(tmp_path / "a.yaml", route(url="http://127.0.0.1:9") + SECRET)
    with running(tmp_path / "run", "-f", tmp_path / "a.yaml") as local:
        assert 'authorization: Bearer $KEY"' in local.curl_line
        assert "dev-key" not in local.told


def test_a_route_without_keys_needs_none_in_its_curl_line(tmp_path: Path) -> None:
    open_route = route().replace("{mode: Keys, keysFrom: {secretRef: {name: clients}}}", "{mode: None}")
    save(tmp_path / "a.yaml", open_route)
    with running(tmp_path / "run", "-f", tmp_path / "a.yaml") as local:
        assert "authorization" not in local.curl_line
        assert local.ask("m", key=None).status_code == 200


def test_stdout_has_a_json_line_for_each_request_and_nothing_of_the_narration(tmp_path: Path) -> None:
    with running(tmp_path, "-f", QUICKSTART) as local:
        assert local.ask("chat").status_code == 200
        wait_until(lambda: local.logged, "the request's line")
        local.interrupt()
    (line,) = local.logged
    assert (line["status"], line["model"]) == (200, "chat")
    assert "dev-key" not in (tmp_path / "stdout").read_text()
    assert all(text.startswith(("llmroute: ", "  ")) for text in local.told.splitlines())


def test_one_gateway_of_several_is_chosen(tmp_path: Path) -> None:
    save(tmp_path / "a.yaml", f"{route('a', 'm')}---\n{route('b', 'n', gateway='other')}{SECRET}")
    with running(tmp_path / "run", "-f", tmp_path / "a.yaml", "--gateway", "other", "--namespace", "shop") as local:
        assert "gateway other in namespace shop" in local.told
        assert (local.ask("n").status_code, local.ask("m").status_code) == (200, 404)
    with started(tmp_path / "run", "-f", tmp_path / "a.yaml") as local:
        local.tells(
            "there are several gateways; choose one with --gateway or --namespace: gateway default in namespace"
        )


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_port_that_is_taken_is_told(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        other = "--admin-port" if option == "--port" else "--port"
        done = llmroute("run", "-f", QUICKSTART, option, port, other, "0")
    assert done.returncode == 2
    assert done.stderr.startswith(f"llmroute: cannot listen on 127.0.0.1 port {port}: Address already in use; ")
    assert option in done.stderr


def test_any_address_is_told_as_one_to_call(tmp_path: Path) -> None:
    with running(tmp_path, "-f", QUICKSTART, "--host", "0.0.0.0") as local:
        assert local.url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{local.url}/ready").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run"], "required: -f/--file"),
        (["run", "-f", "nowhere.yaml"], "llmroute: nowhere.yaml: there is no such file or folder"),
        (["run", "-f", "-"], "stdin is not"),
        (["run", "-f", "examples", "--port", "http"], "'http' is not a port"),
        (["run", "-f", "examples", "--port", "65536"], "'65536' is not a port"),
        (["validate"], "required: -f/--file"),
        (["compile", "-f", "examples", "-o"], "expected one argument"),
        (["validate", "-f", "examples", "-o", "xml"], "invalid choice: 'xml'"),
        (["serve", "--config-file", "x"], "unrecognized arguments"),
        ([], "required: COMMAND"),
    ],
)
def test_a_wrong_call_is_told_with_exit_code_2(arguments: list[str], told: str) -> None:
    done = llmroute(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stdout == ""


def test_validate_tells_people_and_programs(tmp_path: Path) -> None:
    good = llmroute("validate", "-f", "examples/quickstart.yaml")
    assert (good.returncode, good.stdout, good.stderr) == (0, "valid\n", "")
    bad = llmroute("validate", "-f", "-", stdin=route(upstream="nobody"))
    assert bad.returncode == 1
    assert bad.stdout.startswith("<stdin>:12: spec.models[0].targets[0].upstream: no upstream is named 'nobody'")
    answer = llmroute("validate", "-f", "-", "-o", "json", stdin=route(upstream="nobody"))
    assert answer.returncode == 1
    (problem,) = json.loads(answer.stdout)["problems"]
    assert (problem["file"], problem["line"], problem["reason"]) == ("<stdin>", 12, "UnknownUpstream")


def test_compile_prints_configmaps_for_kubectl(tmp_path: Path) -> None:
    save(tmp_path / "a.yaml", f"{route('a', 'm')}---\n{route('b', 'n', gateway='other')}")
    done = llmroute("compile", "-f", tmp_path, "--namespace", "shop")
    assert (done.returncode, done.stderr) == (0, "")
    found = list(yaml.safe_load_all(done.stdout))
    assert [one["metadata"] for one in found] == [
        {"name": "llmroute-gateway-default", "namespace": "shop"},
        {"name": "llmroute-gateway-other", "namespace": "shop"},
    ]
    several = llmroute("compile", "-f", tmp_path, "-o", tmp_path / "out")
    assert several.returncode == 1
    assert "choose one with --gateway" in several.stderr
    assert llmroute("compile", "-f", tmp_path, "-o", tmp_path / "out", "--gateway", "other").returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gateway.json", "route.b.json"]
