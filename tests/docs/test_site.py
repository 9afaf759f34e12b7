"""The site builds without a warning and asks nobody else, and every link within the repository leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, REPOSITORY

ALL = (*PAGES, *sorted((REPOSITORY / "docs" / "runbooks").glob("*.md")))
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FETCHED = re.compile(
    r"<(?:script|img|iframe)[^>]+src=\"(?:https?:)?//|<link[^>]+rel=\"(?:stylesheet|preload|preconnect)\"[^>]+//"
)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and MyST make them."""
    headings = _HEADING.findall(_FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL, ids=[page.name for page in ALL])
def test_each_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(_CODE.sub("", _FENCED.sub("", page.read_text()))):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_the_site_builds_strictly_and_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    command: list[str | Path] = [Path(sys.executable).parent / "sphinx-build", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "doctrees", REPOSITORY / "docs", tmp_path / "site"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {page.stem for page in pages} >= {page.stem for page in ALL if page.name != "README.md"}
    assert [page.name for page in pages if _FETCHED.search(page.read_text())] == []
    styles = (tmp_path / "site").rglob("*.css")
    assert [style.name for style in styles if re.search(r"(@import|url\()[^;)]*//", style.read_text())] == []


def test_each_threat_has_a_test_that_shows_its_answer() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text()
    _, _, table = text.partition("| threat | answer | shown by, in `tests/` |\n|---|---|---|\n")
    rows = table.partition("\n\n")[0].splitlines()
    assert len(rows) > 10
    for row in rows:
        files = _CODE.findall(row.rstrip("| ").rpartition("|")[2])
        assert files, row
        assert [file for file in files if not (REPOSITORY / "tests" / file.strip("`")).exists()] == [], row
