"""Tables of names and values, on a terminal or in a file."""

from __future__ import annotations

from collections.abc import Iterable

PLAIN_WIDTH = 120
"""Columns of what is printed where the output is not a terminal and so has no width of its own."""


def print_rows(rows: Iterable[tuple[str, object]]) -> None:
    """:param rows: names and values; a value may have several lines"""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(str(value)))  # Text, because a path or a file's words may look like markup
    console.print(table)
