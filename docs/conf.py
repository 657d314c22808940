"""
Sphinx over the Markdown pages of this folder: ``make docs``. Nothing is fetched from the network.

The pages read as well on a code host, so MyST's own syntax is used for tables of contents and docstrings alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

from sb3_vgs_ppo import __version__

project = "sb3-vgs-ppo"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

myst_heading_anchors = 3
"""Headings of these levels are targets, under the names that code hosts give them: ``change.md#the-preset``."""

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
add_module_names = False

html_theme = "furo"
html_title = f"{project} {release}"


def link_pages_outside(app: Sphinx, docname: str, source: list[str]) -> None:
    """Let links to Markdown files outside this folder be downloads, as links to other files are there."""
    folder = Path(app.srcdir, docname).parent

    def link(found: re.Match[str]) -> str:
        is_page = (folder / found[1]).resolve().is_relative_to(app.srcdir)
        return found[0] if is_page else f"](path:{found[1]})"

    source[0] = re.sub(r"\]\(([^)#:]+\.md)\)", link, source[0])


def setup(app: Sphinx) -> None:
    app.connect("source-read", link_pages_outside)
