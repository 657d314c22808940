"""The pages of the documentation, their blocks and their commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts),
    *sorted(ROOT.glob("results/**/*.md")),
]
SHELL = ("", "sh")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """:return: the fenced blocks of a page, in their order"""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text[: found.start()].count("\n") + 1)
        for found in re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def name_of(value: object) -> str:
    """:return: name of a parameter in a test's id"""
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def pages_with(*languages: str) -> list[Path]:
    """:return: pages that have a block in one of the languages"""
    return [page for page in PAGES if any(block.language in languages for block in blocks_of(page))]


def is_command(line: str) -> bool:
    """:return: whether a line is a command of this project, or one that its pages need besides"""
    return re.match(r"(\w+=\S+ )*(sb3-vgs-\S+|make|python|pip|ray) ", line) is not None


def commands_of(page: Path) -> list[list[str]]:
    """:return: command lines of a page as words, without comments and settings of the shell's environment"""
    lines = [
        line
        for block in blocks_of(page)
        if block.language in SHELL
        for line in block.text.replace("\\\n", " ").splitlines()
        if is_command(line) or block.language == "sh"
    ]
    split = [shlex.split(line, comments=True) for line in lines]
    return [[word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word) or words[0] == "make"] for words in split]


def save_named_blocks(page: Path, folder: Path) -> None:
    """Save blocks that begin with ``# NAME.py`` or ``# NAME.yaml`` under that name, as a reader of the page would."""
    for block in blocks_of(page):
        name = re.match(r"# (\S+\.(?:py|yaml))\n", block.text)
        if name:
            (folder / name[1]).write_text(block.text, encoding="utf-8")
