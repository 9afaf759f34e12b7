"""Code blocks of Markdown pages, as a reader copies them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"

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
    """Of a `console` block: each line that begins with `$ `, and what stands below it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        yield Command(line, output)


def matches(shown: str, got: str) -> bool:
    """Whether `got` is what the page shows, apart from how it is spaced."""
    words = (re.escape(" ".join(part.split())) for part in shown.split("…"))
    return re.fullmatch(".*".join(words), " ".join(got.split()), re.DOTALL) is not None
