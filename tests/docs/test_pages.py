"""Links lead somewhere, the table of contents is complete, file formats are described, and the site builds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import PAGES, ROOT, blocks_of, name_of


def anchors_of(page: Path) -> set[str]:
    """:return: names that code hosts and MyST give to the headings of a page"""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []


def test_every_page_is_in_a_table_of_contents() -> None:
    index = ROOT / "docs" / "index.md"
    listed = {name for block in blocks_of(index) if block.language == "{toctree}" for name in block.text.split("\n")}
    names = {str(page.relative_to(index.parent).with_suffix("")) for page in PAGES if page.is_relative_to(index.parent)}
    assert names - listed == {"index"}


def test_the_files_of_a_run_are_described(template: Path) -> None:
    page = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
    files = {path.name + "/" * path.is_dir() for path in (template / "runs" / "first").iterdir()}
    names = {re.sub(r"^events\.out\..*", "events.out.tfevents.…", name) for name in files}
    assert {name for name in names if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("file", ["config.json", "status.json"])
def test_the_fields_of_a_run_are_described(file: str, template: Path) -> None:
    page = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
    values = json.loads((template / "runs" / "first" / file).read_text(encoding="utf-8"))
    names = [*values, *(values.get("summary") or {})]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """In a process of its own: autodoc changes the signatures of what it documents."""
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", ROOT / "docs", tmp_path]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "Can I use it?" in (tmp_path / "algorithms" / "dppo.html").read_text(encoding="utf-8")
