"""The pages of the docs and their contents."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from typing_extensions import override

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    sorted([ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "bench" / "README.md", *(ROOT / "docs").rglob("*.md")])
)


class Block(NamedTuple):
    """Code between two fences."""

    page: Path
    line: int
    """Of its first line."""
    language: str
    text: str

    @override
    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced ones, in their order; what is indented within a list is taken back."""
    text = page.read_text()
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        indent = len(found[1])
        code = "".join(line[indent:] if line[:indent].isspace() else line for line in found[3].splitlines(True))
        yield Block(page, text[: found.start(3)].count("\n") + 1, found[2], code)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of it may end with, as GitHub makes it."""
    found: set[str] = set()
    fenced = False
    for line in page.read_text().splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and (heading := re.match(r"#+ (.*)", line)):
            plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "")
            found.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return found
