"""Code blocks of Markdown pages, as a reader copies them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
EVERY_PAGE = (
    *PAGES,
    *sorted((REPOSITORY / "docs" / "runbooks").glob("*.md")),
    *sorted((REPOSITORY / "examples").glob("*/README.md")),
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "charts" / "llmroute" / "README.md",
)
_BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = "$ "


@dataclass(frozen=True, slots=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def path(self) -> str:
        """Of its page, within the repository."""
        return str(self.page.relative_to(REPOSITORY))

    @property
    def first_line(self) -> str:
        """What it is known by in `not_run.py`: line numbers move."""
        return self.text.partition("\n")[0]

    @property
    def is_run(self) -> bool:
        return self.language in ("console", "bash")

    @property
    def is_of_a_cluster(self) -> bool:
        """Whether its commands are for one: a page may speak of both."""
        return re.search(r"^\$ (kubectl|helm|\S*llmroute-operator) ", self.text, re.MULTILINE) is not None

    @property
    def is_of_the_site(self) -> bool:
        """A table of contents, which the site's generator reads."""
        return self.language.startswith("{")

    @property
    def is_route(self) -> bool:
        return self.language == "yaml" and "kind: LLMRoute" in self.text


@dataclass(frozen=True, slots=True)
class Command:
    line: str
    output: str
    """What the page shows; `…` stands for anything."""


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def commands_of(block: Block) -> Iterator[Command]:
    """Each line that begins with a prompt, with the lines that it goes on in, and what stands below it. In a block
    without prompts each line is a command."""
    lines = block.text.splitlines(keepends=True)
    prompted = block.text.startswith(_PROMPT)
    while lines:
        command = lines.pop(0).removeprefix(_PROMPT)
        while command.endswith("\\\n"):
            command += lines.pop(0)
        output = ""
        while prompted and lines and not lines[0].startswith(_PROMPT):
            output += lines.pop(0)
        yield Command(command.rstrip("\n"), output)


def matches(shown: str, got: str) -> bool:
    """Whether `got` is what the page shows, apart from how it is spaced."""
    words = (re.escape(" ".join(part.split())) for part in shown.split("…"))
    return re.fullmatch(".*".join(words), " ".join(got.split()), re.DOTALL) is not None
