"""The site (`make docs`): Sphinx reads these pages as they are. Nothing is fetched when a page is looked at."""

import re
from pathlib import Path

from sphinx.application import Sphinx

project = "llmroute"
author = "The llmroute authors"
extensions = ["myst_parser"]
exclude_patterns = ["images"]
html_theme = "furo"
html_title = "llmroute"
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 4
nitpicky = True
# GitHub's `console` blocks hold commands and what they print; no lexer knows all of that.
suppress_warnings = ["misc.highlighting_failure", "myst.header"]

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)]+)\)")
NAMED = (Path(__file__).parent / "index.md").read_text().split()


def _name_the_rest(_app: Sphinx, docname: str, source: list[str]) -> None:
    """A page that index.md does not name yet is found under "More", so that adding one breaks nothing."""
    if docname == "index":
        folder = Path(__file__).parent
        rest = [path.stem for path in sorted(folder.glob("*.md")) if path.stem not in (*NAMED, "index")]
        rest += [f"runbooks/{path.stem}" for path in sorted((folder / "runbooks").glob("*.md"))]
        source[0] += "\n```{toctree}\n:caption: More\n\n" + "\n".join(rest) + "\n```\n"


def _tell_files_of_the_repository(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """They are links for readers of the repository, and no part of the site: there their path is told."""
    source[0] = _OUTSIDE.sub(
        lambda link: f"`{link[2]}`" if link[1] == link[2] else f"{link[1]} (`{link[2]}`)", source[0]
    )


def setup(app: Sphinx) -> None:
    app.connect("source-read", _name_the_rest)
    app.connect("source-read", _tell_files_of_the_repository)
