"""No block of the documentation is only text: it is run, it is validated, or `not_run.py` says why not."""

import os
import re
import shlex
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from llmroute_operator.command import _parser as operator_parser
from llmroute_operator.injector.settings import InjectorSettings, parse_settings
from llmroute_sidecar.command import _parser as gateway_parser
from tests.docs.blocks import EVERY_PAGE, REPOSITORY, Block, blocks_of, commands_of, matches
from tests.docs.not_run import NOT_RUN
from tests.docs.routes import SETTINGS, completed, is_part
from tests.docs.terminal import SCRIPTS, LocalSession, shell
from tests.sidecar.local_process import llmroute

BLOCKS = [block for page in EVERY_PAGE for block in blocks_of(page)]
YAML = [block for block in BLOCKS if block.language == "yaml"]
LISTED = [block for block in BLOCKS if block.first_line in NOT_RUN.get(block.path, {})]
LOCAL = sorted({block.page for block in BLOCKS if block.is_run and block not in LISTED and not block.is_of_a_cluster})
SPOKEN = [block for block in BLOCKS if block.language in ("", "console")]
TARGETS = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
FOLDERS = {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
PARSERS = {"llmroute": gateway_parser(), "llmroute-operator": operator_parser()}


def test_each_block_is_run_or_validated_or_it_is_said_why_not() -> None:
    known = [block for block in BLOCKS if block.is_run or block.language == "yaml" or block.is_of_the_site]
    assert [f"{block.place}: {block.first_line}" for block in BLOCKS if block not in known + LISTED] == []


def test_what_is_said_of_blocks_is_said_of_one_that_is_there() -> None:
    said = {(page, line) for page, lines in NOT_RUN.items() for line in lines}
    assert said - {(block.path, block.first_line) for block in LISTED} == set()
    files = {
        found for reasons in NOT_RUN.values() for why in reasons.values() for found in re.findall(r"tests/\S+", why)
    }
    assert [file for file in files if not (REPOSITORY / file.rstrip(";,)")).exists()] == []


@pytest.mark.parametrize("block", YAML, ids=[block.place for block in YAML])
def test_a_block_of_yaml_is_well_formed_and_its_routes_are_valid(block: Block) -> None:
    assert list(yaml.safe_load_all(block.text))
    if block.path == SETTINGS:
        assert isinstance(parse_settings(f"image: llmroute@sha256:{'0' * 64}\n{block.text}"), InjectorSettings)
    elif block.is_route or is_part(block):
        text = block.text if block.is_route else yaml.safe_dump(completed(block))
        done = llmroute("validate", "-f", "-", stdin=text)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.server
@pytest.mark.parametrize("page", LOCAL, ids=[page.name for page in LOCAL])
def test_the_commands_of_a_page_give_what_it_shows(page: Path, tmp_path: Path) -> None:
    blocks = [one for one in blocks_of(page) if one.is_route or (one.is_run and not one.is_of_a_cluster)]
    environment = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    with ExitStack() as entered:
        terminal = entered.enter_context(shell(tmp_path, environment))
        (tmp_path / "hello.mp3").write_bytes(b"hello")
        LocalSession(tmp_path, terminal, entered).follow([block for block in blocks if block not in LISTED])


@pytest.mark.parametrize("block", SPOKEN, ids=[block.place for block in SPOKEN])
def test_what_a_command_names_is_there(block: Block) -> None:
    """Of every page, run or not: options of our programs, targets of make, files of this repository."""
    for command in commands_of(block):
        try:
            program, *words = shlex.split(command.line.rstrip("&"), comments=True) or [""]
        except ValueError:  # it goes on in the next line: run, or no command of ours
            continue
        if (name := Path(program).name) in PARSERS:
            PARSERS[name].parse_args(words)
        elif program == "make":
            assert set(words[:1]) <= TARGETS, command.line  # CONTRIBUTING.md says behind it what it is for
        elif program in ("kubectl", "docker", "buildah", "helm"):
            named = [word.partition("=")[2] or word for word in words if re.match(r"(\S+=)?(\w[\w-]+/)+[\w.-]*$", word)]
            ours = [word for word in named if word.partition("/")[0] in FOLDERS]
            assert [word for word in ours if not (REPOSITORY / word).exists()] == [], command.line


def test_what_matches_is_what_is_shown() -> None:
    assert matches("a  b\n", "a b")
    assert matches("id …, done", "id 17, done")
    assert not matches("200\n429\n", "200\n200\n")
