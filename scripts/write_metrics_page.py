"""
Write the tables of metrics in the documentation from sb3_vgs_ppo/glossary.py: python scripts/write_metrics_page.py

A table stands between ``<!-- metrics: NAME -->`` and ``<!-- end of metrics -->``; the text around it is not touched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sb3_vgs_ppo.glossary import GLOSSARY, Metric

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS / "metrics.md", DOCS / "change.md")
_TABLE = re.compile(r"(<!-- metrics: (\w+) -->\n).*?(<!-- end of metrics -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """:return: a page with its tables as the glossary has them"""
    return _TABLE.sub(lambda found: f"{found[1]}\n{markdown_table(GLOSSARY[found[2]])}\n{found[3]}", text)


def markdown_table(metrics: Sequence[Metric]) -> str:
    """:return: a table with a row per metric"""
    rows = [
        f"| {', '.join(f'`{key}`' for key in metric.keys)} | {metric.unit} | {metric.window} | {metric.meaning} |\n"
        for metric in metrics
    ]
    return "".join(["| key | unit | window | meaning |\n", "|---|---|---|---|\n", *rows])


def main() -> None:
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
