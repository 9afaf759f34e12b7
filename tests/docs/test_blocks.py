"""Each route of the docs is valid, and the calls of the tutorials give what is shown."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import PAGES, REPOSITORY, Block, Command, blocks_of, commands_of, matches
from tests.sidecar.local_process import llmroute, running, shell

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
YAML = [block for block in BLOCKS if block.language == "yaml"]
TUTORIALS = [REPOSITORY / "docs" / name for name in ("first-ten-minutes.md", "recipes.md")]


def calls() -> Iterator[tuple[Block, Block]]:
    """Of the tutorials, each block of calls and the route above it."""
    for page in TUTORIALS:
        route: Block | None = None
        for block in blocks_of(page):
            if block.is_route:
                route = block
            elif block.language == "console":
                assert route is not None, block.place
                yield route, block


CALLS = list(calls())


@pytest.mark.parametrize("block", YAML, ids=[block.place for block in YAML])
def test_a_block_of_yaml_is_well_formed_and_its_routes_are_valid(block: Block) -> None:
    assert list(yaml.safe_load_all(block.text))
    if block.is_route:
        done = llmroute("validate", "-f", "-", stdin=block.text)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.server
@pytest.mark.parametrize(("route", "block"), CALLS, ids=[block.place for _, block in CALLS])
def test_the_calls_of_a_tutorial_give_what_it_shows(route: Block, block: Block, tmp_path: Path) -> None:
    file = tmp_path / "route.yaml"
    file.write_text(route.text)
    with running(tmp_path, "-f", file) as local:
        for command in commands_of(block):
            got = shell(at(local.url, command))
            assert matches(command.output, got), f"{block.place}: {command.line}\nshown:\n{command.output}\ngot:\n{got}"


def at(url: str, command: Command) -> str:
    assert "localhost:8790" in command.line, "only calls of the gateway stand in the tutorials' console blocks"
    return command.line.replace("localhost:8790", url.removeprefix("http://"))


def test_what_matches_is_what_is_shown() -> None:
    assert matches("a  b\n", "a b")
    assert matches("id …, done", "id 17, done")
    assert not matches("200\n429\n", "200\n200\n")
