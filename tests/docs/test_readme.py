"""The README's calls, as it shows them, against the quickstart that `make run` serves."""

import os
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import REPOSITORY, blocks_of, commands_of, matches
from tests.sidecar.local_process import QUICKSTART, running, shell

pytestmark = pytest.mark.server
BLOCKS = list(blocks_of(REPOSITORY / "README.md"))
ADDRESS = "127.0.0.1:8790"


def test_the_readmes_calls_give_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (calls,) = [block for block in BLOCKS if block.language == "console"]
    (sdk,) = [block for block in BLOCKS if "from openai import OpenAI" in block.text]
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with running(tmp_path, "-f", QUICKSTART) as local:
        here = local.url.removeprefix("http://")
        for command in commands_of(calls):
            got = shell(command.line.replace(ADDRESS, here))
            assert matches(command.output, got), got
        assert ADDRESS in sdk.text
        assert "mock upstream" in shell(sdk.text.replace(ADDRESS, here))
