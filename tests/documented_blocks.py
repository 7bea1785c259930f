"""Code blocks of README, CONTRIBUTING and docs/, each with the comment above it that says how it is tested.

<!-- run -->                       test_documented_commands.py runs it as printed, in a folder like a reader's
<!-- run by tests/test_x.py -->    that file does, and names the page
<!-- not run: WHY -->              nothing does
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TAGGED = ("bash", "python", "gin")  # languages that readers type or paste
FENCE = re.compile(r"( *)```([^\n`]*)")
TAG = re.compile(r"<!-- (?:(?P<run>run)|run by (?P<file>tests/\S+\.py)|not run: (?P<reason>.{8,})) -->")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block: its page, its number there, its language, its text and the comment above it."""

    page: str
    number: int
    language: str
    text: str
    tag: re.Match | None

    @property
    def where(self) -> str:
        """Page and number, for names of tests."""
        return f"{self.page} block {self.number}"

    @property
    def is_run(self) -> bool:
        """Whether test_documented_commands.py runs it."""
        return self.tag is not None and self.tag["run"] is not None

    def lines(self) -> list[str]:
        """Returns its commands without comments, those that go over several lines joined."""
        lines = (line.strip() for line in self.text.replace("\\\n", " ").splitlines())
        return [line for line in lines if line and not line.startswith("#")]


def pages() -> list[str]:
    """Returns the pages whose blocks are tagged, by path below the repository."""
    written = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
    return ["README.md", "CONTRIBUTING.md", *written]


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """Returns the fenced blocks of a page in their order; `text` in place of what the file says."""
    lines = ((ROOT / page).read_text() if text is None else text).splitlines()
    found: list[Block] = []
    at = 0
    while at < len(lines):
        opened = FENCE.fullmatch(lines[at])
        if opened:
            indent, info = opened.groups()
            end = lines.index(f"{indent}```", at + 1)
            body = "".join(f"{line.removeprefix(indent)}\n" for line in lines[at + 1 : end])
            tag = TAG.fullmatch(lines[at - 1].strip()) if at else None
            found.append(Block(page, len(found), (info.split() or [""])[0], body, tag))
            at = end
        at += 1
    return found
