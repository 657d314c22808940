"""The report of a study: one page that needs no network, figures for papers, and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from sb3_vgs_ppo._files import atomic_write
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.figures import draw_study, figure_stem
from sb3_vgs_ppo.studies.page_data import page_data
from sb3_vgs_ppo.studies.palette import styles
from sb3_vgs_ppo.studies.results import EnvironmentResult, StudyResult, VariantResult
from sb3_vgs_ppo.studies.statistics import RESAMPLES
from sb3_vgs_ppo.studies.store import MANIFEST, StudyStore
from sb3_vgs_ppo.studies.summary import summarize
from sb3_vgs_ppo.studies.tables import write_tables
from sb3_vgs_ppo.studies.verdicts import (
    FEW_SEEDS,
    SIGNIFICANCE,
    Verdict,
    clear_best,
    judge_study,
    primary_measure,
    summarize_verdicts,
    update_notes,
)
from sb3_vgs_ppo.studies.wording import (
    MEASURES,
    counted,
    duration,
    interval,
    listed,
    number,
    p_value,
    signed,
    with_interval,
)

FOLDER = "report"
PAGE = "report.html"

_COVERAGES = (("quantile", 0.05), ("quantile", 0.5), ("quantile", 0.95), ("interval", 0.5), ("interval", 0.9))
"""Kinds and levels of the table; ``summary.json`` has all."""


def write_report(
    store: StudyStore,
    out: Path | None = None,
    *,
    variants: Sequence[str] | None = None,
    baseline: str | None = None,
) -> tuple[Path, StudyResult]:
    """
    Summarize a study, finished or not, and write ``report.html``, ``figures/`` and the tables.

    :param store: the study
    :param out: folder, made where it is missing; ``report`` in the study's folder by default
    :param variants: names of those to show, all by default
    :param baseline: the variant that they are compared with, that of the study by default
    :return: the page, and what it shows
    :raises StudyError: a name that the study does not have, no cell is done, a cell cannot be read, or the folder
        cannot be written
    """
    out = store.path / FOLDER if out is None else out
    result = summarize(store, variants=variants, baseline=baseline)
    command = f"sb3-vgs-ppo compare --study {store.path.name}/{MANIFEST} --out {store.path.name}-again"
    try:
        write_tables(result, out)
        draw_study(result, out / "figures")
        with atomic_write(out / PAGE) as file:
            file.write(render_page(result, store.study.to_mapping(), command).encode())
    except OSError as error:
        raise StudyError(f"{out} cannot be written: {error.strerror or error}; remedy: another --out") from None
    return out / PAGE, result


def render_page(result: StudyResult, definition: Mapping[str, Any], command: str) -> str:
    """
    :param definition: of the study, as :meth:`~sb3_vgs_ppo.studies.definition.Study.to_mapping` gives it
    :param command: command line that runs the same study again
    :return: HTML with styles, scripts and data inside
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    for function in (duration, interval, number, p_value, signed, with_interval):
        jinja.filters[function.__name__] = function
    look = styles(result)
    data = page_data(result)
    return jinja.from_string(_template("report.html.j2")).render(
        variants=counted(len(look), "variant"),
        environments=listed([found.env_id for found in result.environments]),
        subtitle=_subtitle(result),
        result=result,
        sentences=summarize_verdicts(result),
        best_overall=clear_best(result.normalized.items()),
        sections=_sections(result, data),
        measures=MEASURES,
        styles=look,
        classes={name: f"v{i}" for i, name in enumerate(look)},
        bands=data["bands"],
        data=data,
        css=Markup(_template("report.css")),
        script=Markup(_template("report.js")),
        plotly_js=Markup(get_plotlyjs()),
        resamples=RESAMPLES,
        coverages=_COVERAGES,
        few_seeds=FEW_SEEDS,
        significance=SIGNIFICANCE,
        command=command,
        definition=json.dumps(definition, indent=2),
    )


@cache
def _template(name: str) -> str:
    return (files("sb3_vgs_ppo.studies") / "templates" / name).read_text(encoding="utf-8")


def _subtitle(result: StudyResult) -> str:
    done = f"{result.n_done} of {counted(result.n_cells, 'cell')} done"
    return f"{counted(len(result.seeds), 'seed')}, {done}; all variants are compared with {result.baseline}."


def _sections(result: StudyResult, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    verdicts = judge_study(result)
    return [
        {
            "index": i,
            "id": f"env-{figure_stem(environment.env_id)}",
            "environment": environment,
            "subtitle": _environment_subtitle(environment),
            "primary": primary_measure(environment),
            "verdicts": _by_measure(verdicts, environment),
            "notes": update_notes(environment),
            "caption": _caption(environment),
            "returns": data["environments"][i]["metrics"][0],
            "diagnostics": _diagnostics(data["environments"][i]["metrics"]),
            "measures": measures,
            "best": {
                measure: clear_best((variant.variant, getattr(variant, measure)) for variant in environment.variants)
                for measure in measures
            },
            "tested": _tested(environment),
            "calibrated": [variant for variant in environment.variants if variant.coverage],
            "n_phases": max((len(variant.phases) for variant in environment.variants), default=0),
        }
        for i, environment in enumerate(result.environments)
        for measures in [_shown_measures(environment)]
    ]


def _tested(environment: EnvironmentResult) -> list[VariantResult]:
    """:return: variants that test for changes"""
    return [variant for variant in environment.variants if variant.detection is not None]


def _caption(environment: EnvironmentResult) -> str:
    """:return: what the plot of returns shows"""
    parts = ["mean of the last 20 training episodes, IQM over seeds with 95 % interval"]
    if environment.phase_length is not None:
        parts.append("dotted: the task changes")
    if _tested(environment):
        parts.append("below: alarms of all seeds, a tick where one found a change, a cross where it did not")
    return "; ".join(parts) + ". Drag to zoom, double click to zoom out."


def _diagnostics(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, Mapping[str, Any]]]]:
    """:return: metrics after the return, with their indices, by heading"""
    grouped: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for index, metric in enumerate(metrics[1:], start=1):
        is_plasticity = metric["name"].startswith("plasticity/")
        heading = "Plasticity of the networks" if is_plasticity else "What VGS and training did meanwhile"
        grouped.setdefault(heading, []).append((index, metric))
    return grouped


def _by_measure(verdicts: tuple[Verdict, ...], environment: EnvironmentResult) -> dict[str, list[Verdict]]:
    """:return: verdicts on an environment by measure, the primary one first"""
    grouped: dict[str, list[Verdict]] = {primary_measure(environment): []}
    for verdict in verdicts:
        if verdict.comparison.env_id == environment.env_id:
            grouped.setdefault(verdict.comparison.measure, []).append(verdict)
    return grouped


def _shown_measures(environment: EnvironmentResult) -> list[str]:
    """:return: measures that a variant has"""
    return [name for name in MEASURES if any(getattr(variant, name) is not None for variant in environment.variants)]


def _environment_subtitle(environment: EnvironmentResult) -> str:
    text = f"{environment.total_timesteps:,} environment steps per cell"
    if environment.phase_length is not None:
        text += f"; the task changes every {environment.phase_length:,} steps"
    return text + "."
