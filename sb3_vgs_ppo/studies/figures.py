"""Figures for papers, as PNG and as SVG whose text stays text. Everything drawn was computed before.

The same result gives the same bytes: no dates, and names inside the SVG do not depend on chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sb3_vgs_ppo.studies.palette import LIGHT_INK, MANY, Style, styles
from sb3_vgs_ppo.studies.results import EnvironmentResult, StudyResult
from sb3_vgs_ppo.studies.wording import MEASURES, METRICS, metric_label, p_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_LINESTYLES = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1.2, 1.4))}
_FAINT = "#c3c7ce"
_SETTINGS = {
    "svg.hashsalt": "sb3-vgs-ppo",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.edgecolor": "#8a9099",
    "axes.labelcolor": LIGHT_INK,
    "text.color": LIGHT_INK,
    "xtick.color": LIGHT_INK,
    "ytick.color": LIGHT_INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.7,
}
_DPI = 160
_ALARM_ROW = 0.035
"""Height of a row of alarms, as a share of the axes."""

_GROUPS = {"vgs": "what VGS and clipping did to the updates", "plasticity": "plasticity of the networks"}
"""Logged metrics with a figure of their own by the first part of their names, with its title."""


def draw_study(result: StudyResult, out: Path) -> list[Path]:
    """
    Draw per environment the returns, what VGS did and the plasticity, and one figure of all probabilities of
    improvement.

    :param out: folder; figures of the same name in it are replaced
    :return: the files: ``<environment>_return``, ``<environment>_vgs`` and ``<environment>_plasticity`` where a variant
        logged it, and ``probability_of_improvement`` where there is a comparison, each as ``.png`` and ``.svg``
    """
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    look = styles(result)
    for environment in result.environments:
        stem = figure_stem(environment.env_id)
        many = len(look) > MANY
        with _figure(None if many else "constrained") as figure:
            draw = _draw_panels if many else _draw_returns
            draw(
                figure, environment, result.alarms[result.alarms["env_id"] == environment.env_id], look, result.baseline
            )
            files += _save(figure, out / f"{stem}_return")
        for group, title in _GROUPS.items():
            metrics = [metric for metric in shown_metrics(environment.bands) if metric.startswith(f"{group}/")]
            if metrics:
                with _figure() as figure:
                    _draw_metrics(figure, environment, look, metrics, title)
                    files += _save(figure, out / f"{stem}_{group}")
    if any(environment.comparisons for environment in result.environments):
        with _figure() as figure:
            _draw_probabilities(figure, result)
            files += _save(figure, out / "probability_of_improvement")
    return files


def figure_stem(env_id: str) -> str:
    """:return: start of an environment's file names"""
    return env_id.replace("/", "_").replace(":", "_")


def shown_metrics(bands: pd.DataFrame) -> list[str]:
    """:return: the logged metrics that have curves: those we know in their order, then the others; not the return"""
    found = [str(metric) for metric in bands["metric"].unique()]
    return [name for name in METRICS if name in found and name != "return"] + sorted(set(found) - set(METRICS))


def needs_log_scale(values: pd.Series[float]) -> bool:
    """:return: whether positive values spread over more than two decades, of which a linear axis shows one"""
    finite = values[np.isfinite(values)]
    return len(finite) > 0 and bool(0 < 100 * finite.min() < finite.max())


def phase_changes(environment: EnvironmentResult) -> list[int]:
    """:return: steps at which the task changes"""
    length = environment.phase_length
    return [] if length is None else list(range(length, environment.total_timesteps, length))


def testing_variants(environment: EnvironmentResult) -> list[str]:
    """:return: names of the variants that test for changes, in the study's order"""
    return [variant.variant for variant in environment.variants if variant.detection is not None]


@contextmanager
def _figure(layout: Literal["constrained"] | None = "constrained") -> Iterator[Figure]:
    """An empty figure outside pyplot's global state, with our settings while the block runs."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        yield Figure(layout=layout, dpi=_DPI)


def _save(figure: Figure, stem: Path) -> list[Path]:
    """Draw a figure once for each file: ``savefig`` would do it twice, and lay it out anew."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    png, svg = (stem.with_name(stem.name + kind) for kind in (".png", ".svg"))
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    figure.set_layout_engine("none")
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    return [png, svg]


def _draw_returns(
    figure: Figure, environment: EnvironmentResult, alarms: pd.DataFrame, look: dict[str, Style], baseline: str
) -> None:
    """All variants in one pair of axes, with a row of marks below the curves for each one that tests for changes."""
    curves = _curves(environment.bands, "return")
    names = [name for name in look if name in curves]
    figure.set_size_inches(8, 4.2)
    axes = figure.add_subplot()
    _mark_task(axes, environment)
    for name in names:
        _draw_band(axes, curves[name], look[name])
        _draw_line(axes, curves[name], look[name], label=name)
    tested = testing_variants(environment)
    for row, name in enumerate(reversed(tested)):
        _mark_alarms(axes, _of_variant(alarms, name), look[name], row)
    _make_room(axes, len(tested))
    axes.set(
        title=environment.env_id, xlabel=_steps_label(environment), ylabel="episode return (IQM and 95 % interval)"
    )
    _finish(axes, environment)
    if names:
        figure.legend(loc="outside right center", frameon=False)


def _draw_panels(
    figure: Figure, environment: EnvironmentResult, alarms: pd.DataFrame, look: dict[str, Style], baseline: str
) -> None:
    """One panel per variant: itself with its band, the baseline in the text's colour, the others faint behind."""
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    curves = _curves(environment.bands, "return")
    others = [name for name in look if name != baseline]
    n_columns = 4
    n_rows = -(-len(others) // n_columns)
    width, height = 11.0, 1.9 * n_rows + 1.0
    figure.set_size_inches(width, height)
    # Margins in inches: the layout engine takes seconds for so many panels
    below = 0.4 + 0.18 * len(_steps_label(environment).splitlines())
    figure.subplots_adjust(0.75 / width, below / height, 1 - 0.15 / width, 1 - 0.65 / height, wspace=0.06, hspace=0.24)
    paths = {name: curve[["step", "value"]].to_numpy() for name, curve in curves.items()}
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in panels[len(others) :]:
        axes.remove()
    for axes, name in zip(panels, others, strict=False):
        _mark_task(axes, environment)
        behind = [path for other, path in paths.items() if other not in (name, baseline)]
        axes.add_collection(LineCollection(behind, colors=_FAINT, linewidths=0.6, zorder=1))
        for shown in (baseline, name):
            if shown in curves:
                style = Style(look[shown].light, look[shown].dark, "solid")
                _draw_band(axes, curves[shown], style)
                _draw_line(axes, curves[shown], style)
        _mark_alarms(axes, _of_variant(alarms, name), look[name])
        axes.set_title(name, color=look[name].light)
        _finish(axes, environment)
    panels[0].xaxis.set_major_locator(MaxNLocator(5, prune="upper"))  # else a panel's last label meets the next one's 0
    for axes in panels[max(len(others) - n_columns, 0) : len(others)]:
        axes.tick_params(labelbottom=True)  # where there is no panel below
    _make_room(panels[0], n_rows=int(bool(testing_variants(environment))))  # of all: they share their axes
    figure.suptitle(f"{environment.env_id}: each variant beside {baseline} (dark), the others faint", fontsize=11)
    figure.supxlabel(_steps_label(environment), fontsize=9)
    figure.supylabel("episode return (IQM and 95 % interval)", fontsize=9, x=0.1 / width)


def _draw_metrics(
    figure: Figure, environment: EnvironmentResult, look: dict[str, Style], metrics: Sequence[str], title: str
) -> None:
    n_columns = min(len(metrics), 2)
    n_rows = -(-len(metrics) // n_columns)
    figure.set_size_inches(5 * n_columns, 2.6 * n_rows + 0.6 + 0.2 * (-(-len(look) // 4)))
    panels = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False).ravel()
    for axes in panels[len(metrics) :]:
        axes.remove()
    handles = {}
    for axes, metric in zip(panels, metrics, strict=False):
        curves = _curves(environment.bands, metric)
        for name, style in look.items():
            if name in curves:
                if len(look) <= MANY:
                    _draw_band(axes, curves[name], style)
                handles[name] = _draw_line(axes, curves[name], style, label=name)
        axes.set_title(metric_label(metric))
        _mark_task(axes, environment, threshold=False)
        _finish(axes, environment)
        if needs_log_scale(environment.bands.loc[environment.bands["metric"] == metric, "value"]):
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.yaxis.set_major_formatter("{x:g}")
    shown = [name for name in look if name in handles]
    figure.legend([handles[name] for name in shown], shown, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"{environment.env_id}: {title}", fontsize=11)


def _draw_probabilities(figure: Figure, result: StudyResult) -> None:
    """Forest plot: one row per environment and variant, one column per measure."""
    rows = [
        (environment.env_id, variant.variant)
        for environment in result.environments
        for variant in environment.variants
        if any(comparison.variant == variant.variant for comparison in environment.comparisons)
    ]
    comparisons = [comparison for environment in result.environments for comparison in environment.comparisons]
    measures = list(dict.fromkeys(comparison.measure for comparison in comparisons))
    # One row of space before each environment for its name
    starts = [i for i, row in enumerate(rows) if i == 0 or rows[i - 1][0] != row[0]]
    height = {row: -(i + sum(start <= i for start in starts)) for i, row in enumerate(rows)}
    figure.set_size_inches(3 + 2.9 * len(measures), 0.24 * (len(rows) + len(starts)) + 1.2)
    look = styles(result)
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        axes.axvline(0.5, color="#8a9099", lw=1)
        for comparison in comparisons:
            if comparison.measure == measure:
                y = height[comparison.env_id, comparison.variant]
                estimate, color = comparison.probability, look[comparison.variant].light
                if estimate.low is not None and estimate.high is not None:
                    axes.plot([estimate.low, estimate.high], [y, y], color=color, lw=1.6, solid_capstyle="butt")
                axes.plot(estimate.value, y, "o", color=color, ms=4.5)
                axes.annotate(
                    f"p {p_value(comparison.p_holm)}", (1.02, y), va="center", fontsize=7.5, annotation_clip=False
                )
        axes.set(title=MEASURES[measure], xlim=(-0.02, 1.16), xticks=[0, 0.25, 0.5, 0.75, 1])
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    labels = {height[row]: row[1] for row in rows}
    titles = {height[rows[start]] + 1: rows[start][0] for start in starts}
    ticks = sorted(labels | titles)
    panels[0].set_yticks(ticks, [(labels | titles)[tick] for tick in ticks])
    for tick, text in zip(ticks, panels[0].get_yticklabels(), strict=True):
        text.set_fontweight("bold" if tick in titles else "normal")
    panels[0].set_ylim(min(ticks) - 0.7, max(ticks) + 0.7)
    figure.suptitle(
        f"Probability that a seed does better than one of {result.baseline} (95 % interval; p is Holm-corrected)",
        fontsize=10.5,
    )


def _curves(bands: pd.DataFrame, metric: str) -> dict[str, pd.DataFrame]:
    """:return: rows of a metric by variant, in the order of their steps"""
    chosen = bands[bands["metric"] == metric]
    return {str(name): rows.sort_values("step") for name, rows in chosen.groupby("variant", sort=False)}


def _draw_line(axes: Axes, curve: pd.DataFrame, style: Style, label: str | None = None) -> Line2D:
    (line,) = axes.plot(
        curve["step"], curve["value"], color=style.light, ls=_LINESTYLES[style.dash], lw=1.7, label=label, zorder=3
    )
    return line


def _draw_band(axes: Axes, curve: pd.DataFrame, style: Style) -> None:
    axes.fill_between(curve["step"], curve["low"], curve["high"], color=style.light, alpha=0.16, lw=0, zorder=2)


def _of_variant(alarms: pd.DataFrame, name: str) -> pd.DataFrame:
    return alarms[alarms["variant"] == name]


def _mark_alarms(axes: Axes, alarms: pd.DataFrame, style: Style, row: int = 0) -> None:
    """
    A tick where a change was found, a cross where an alarm found none.

    :param alarms: of one variant, all seeds
    :param row: number of its row, counted from the lower edge of the axes
    """
    found = alarms["delay"].notna()
    for steps, marker in ((alarms.loc[found, "step"], "|"), (alarms.loc[~found, "step"], "x")):
        y = [(row + 0.6) * _ALARM_ROW] * len(steps)
        axes.plot(steps, y, marker, color=style.light, ms=5, mew=1, transform=axes.get_xaxis_transform(), zorder=4)


def _steps_label(environment: EnvironmentResult) -> str:
    if not testing_variants(environment):
        return "environment steps"
    return "environment steps\nmarks: alarms of all seeds, | where one found a change, × where it did not"


def _make_room(axes: Axes, n_rows: int) -> None:
    """Move curves up, so that rows of marks have a place below them."""
    low, high = axes.get_ylim()
    share = n_rows * _ALARM_ROW
    axes.set_ylim(low - (high - low) * share / (1 - share), high)


def _mark_task(axes: Axes, environment: EnvironmentResult, *, threshold: bool = True) -> None:
    for step in phase_changes(environment):
        axes.axvline(step, color="#a2a8b1", lw=0.8, ls=(0, (2, 2)), zorder=1)
    if threshold and environment.threshold is not None:
        axes.axhline(environment.threshold, color="#6d737c", lw=0.9, ls=(0, (6, 3)), zorder=1)


def _finish(axes: Axes, environment: EnvironmentResult) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_xlim(0, environment.total_timesteps)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
