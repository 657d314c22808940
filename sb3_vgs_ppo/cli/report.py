"""``report``: what a study's learning curves say, finished or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.tables import print_rows
from sb3_vgs_ppo.errors import StudyError

if TYPE_CHECKING:
    from sb3_vgs_ppo.studies.results import EnvironmentResult
    from sb3_vgs_ppo.studies.store import StudyStore


@dataclass(frozen=True)
class ReportOptions:
    """Summarize a study, finished or not: write a page, figures and tables, and print the results."""

    study: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STUDY")]
    """Folder of a study, as compare wrote it."""
    out: Path | None = None
    """Folder of the report, whose files are replaced; STUDY/report if not given."""
    variants: tuple[str, ...] = ()
    """Show these variants and the baseline alone: words as compare takes them (adam+vgs), or names of the study."""
    baseline: str | None = None
    """Variant that the others are compared with, instead of the study's."""


def run(argv: Sequence[str], prog: str) -> int:
    """
    :return: exit code 0
    :raises StudyError: no study, none of its cells is done, one cannot be read, or the report cannot be written
    """
    options = parse_options(ReportOptions, argv, prog=prog)
    from sb3_vgs_ppo.studies.store import StudyStore

    store = StudyStore.open(options.study)
    if (options.variants or options.baseline) and options.out is None:
        raise StudyError(f"a report of a part would replace that of {options.study}; remedy: --out")
    report_study(store, options.out, variants=_names(store, options.variants), baseline=options.baseline)
    return 0


def _names(store: StudyStore, words: Sequence[str]) -> list[str] | None:
    """:return: names of the variants that the words stand for, None for all"""
    from sb3_vgs_ppo.studies.variants import variants_from_words

    own = {variant.name for variant in store.study.variants}
    names = [[word] if word in own else [variant.name for variant in variants_from_words([word])] for word in words]
    return [name for some in names for name in some] or None


def report_study(
    store: StudyStore, out: Path | None = None, *, variants: Sequence[str] | None = None, baseline: str | None = None
) -> None:
    """
    Write the report of a study and print what it says.

    :param out: folder of the report; ``report`` in the study's folder by default
    :param variants: names of those to show, all by default
    :param baseline: the variant that they are compared with, that of the study by default
    :raises StudyError: see :func:`sb3_vgs_ppo.studies.report.write_report`
    """
    from sb3_vgs_ppo.studies.report import write_report
    from sb3_vgs_ppo.studies.verdicts import summarize_verdicts

    page, result = write_report(store, out, variants=variants, baseline=baseline)
    for environment in result.environments:
        print(f"{environment.env_id}, {environment.total_timesteps:,} steps")
        print_rows(environment_rows(environment))
        print()
    for sentence in summarize_verdicts(result):
        print(sentence)
    print(f"Report: {page}")


def environment_rows(environment: EnvironmentResult) -> Iterator[tuple[str, str]]:
    """:return: names of variants, and their numbers with 95 % intervals in a line"""
    from sb3_vgs_ppo.studies.wording import MEASURES, with_interval

    for variant in environment.variants:
        parts = [
            f"{words} {with_interval(getattr(variant, measure))}"
            for measure, words in MEASURES.items()
            if getattr(variant, measure) is not None
        ]
        n_missing = variant.n_seeds - variant.n_finished - variant.n_diverged
        for count, what in ((variant.n_diverged, "diverged"), (n_missing, "missing")):
            if count:
                parts.append(f"{count} of {variant.n_seeds} {what}")
        yield variant.variant, "; ".join(parts)
