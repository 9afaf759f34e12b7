"""What is generated is current, and the repository names nothing that only one machine has."""

import subprocess
from pathlib import Path

import pytest
import yaml

from llmroute_contract.llmroute import LLMRoute, parse_route
from llmroute_contract.status import LLMRouteStatus
from tools.generate import REPOSITORY, generated
from tools.reference_page import EXAMPLE, Section, sections


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_a_generated_file_is_current(path: Path) -> None:
    assert path.read_text() == generated()[path], f"{path.name} is stale: run make generate"


def test_locks_name_no_download_address() -> None:
    named = subprocess.run(["git", "ls-files", "*requirements*.txt"], cwd=REPOSITORY, capture_output=True, text=True)
    assert "examples/chat-app/requirements.txt" in named.stdout
    for lock in named.stdout.split():
        assert "://" not in (REPOSITORY / lock).read_text(), lock


def test_no_committed_file_names_this_checkouts_folder() -> None:
    found = subprocess.run(["git", "grep", "-lF", str(REPOSITORY)], cwd=REPOSITORY, capture_output=True, text=True)
    assert found.stdout == ""


def test_the_references_example_is_a_route() -> None:
    document = yaml.safe_load(EXAMPLE.read_text())
    assert isinstance(parse_route(document), LLMRoute)
    LLMRouteStatus.model_validate(document["status"])


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.path)
def test_each_field_of_the_reference_has_a_meaning_and_an_example(section: Section) -> None:
    fields = section.schema["properties"]
    assert {name for value in section.values for name in value} == set(fields), "tools/reference_example.yaml"
    assert [name for name, schema in fields.items() if not schema.get("description")] == []
