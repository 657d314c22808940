"""What a study allows to say, in plain words.

The rule: "higher" and "lower" are said only where the 95 % interval of the difference excludes zero and the rank test
holds after Holm's correction. Where only the interval excludes zero it is a lead, everything else cannot be told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sb3_vgs_ppo.studies.results import Comparison, EnvironmentResult, Estimate, StudyResult, VariantResult
from sb3_vgs_ppo.studies.wording import MEASURES, counted, interval, listed, number, p_value, signed

SIGNIFICANCE = 0.05

FEW_SEEDS = 5
"""Below it intervals cover less than 95 % (:func:`~sb3_vgs_ppo.studies.statistics.expanded_tail`)."""

FACTOR_NEAR_ONE = 0.99
CLIPPING_NEAR_ALWAYS = 0.95
RATIO_TOLERANCE = 0.02
"""From these on VGS is said to have left the update as it was: a mean scaling factor, a share of clipped updates, and
a relative difference of update ratios."""

Kind = Literal["higher", "lower", "perhaps higher", "perhaps lower", "open", "one seed"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_WHEN = {
    "final": ("ended", ""),
    "area": ("was", " over the whole training"),
    "late_phases": ("was", " in the late phases"),
}
_OF_VGS = re.compile(r"(vgs-?)?(off|\d+\.\d+)")


@dataclass(frozen=True)
class Verdict:
    """
    :param comparison: what it is about
    :param kind: how much can be said
    :param text: a sentence or two
    """

    comparison: Comparison
    kind: Kind
    text: str


def primary_measure(environment: EnvironmentResult) -> str:
    """:return: the measure that is judged first: late phases where the task changes, since they show what is lost"""
    return "final" if environment.phase_length is None else "late_phases"


def judge_study(study: StudyResult) -> tuple[Verdict, ...]:
    """:return: one verdict per comparison, in the study's order"""
    return tuple(
        judge(comparison, environment, _n_corrected(study, comparison.measure))
        for environment in study.environments
        for comparison in environment.comparisons
    )


def judge(comparison: Comparison, environment: EnvironmentResult, n_corrected: int) -> Verdict:
    """
    :param environment: where the comparison was made; its variants know how many seeds were compared
    :param n_corrected: comparisons that Holm's correction was made for
    """
    names = (comparison.variant, comparison.baseline)
    seeds = tuple(_n_seeds(environment, name, comparison.measure) for name in names)
    kind = _kind(comparison)
    what = f"{comparison.variant} and {comparison.baseline}: "
    if kind == "one seed":
        text = (
            f"{what}nothing can be concluded about the {MEASURES[comparison.measure]}. The difference is "
            f"{signed(comparison.difference.value)}, but with {_against(seeds)} chance alone may have made it."
        )
        return Verdict(comparison, kind, text)
    difference, within = signed(comparison.difference.value), interval(comparison.difference, sign=True)
    if kind == "open":
        text = f"{what}no difference in the {MEASURES[comparison.measure]} can be told: {difference}, "
        text += f"and the 95 % interval spans {within}; {_ranks(comparison, seeds)}."
        if comparison.p_holm < SIGNIFICANCE:
            text += " The rank test alone would tell them apart, but not by how much."
        return Verdict(comparison, kind, text)
    verb, when = _WHEN[comparison.measure]
    if kind.startswith("perhaps"):
        verb = "may have ended" if verb == "ended" else "may have been"
    text = f"{comparison.variant} {verb} {kind.split()[-1]} than {comparison.baseline}{when}: {difference} "
    text += f"(95 % interval {within}), {_ranks(comparison, seeds)}."
    if kind.startswith("perhaps"):
        text += f" {_why_not_certain(seeds, n_corrected)}"
    return Verdict(comparison, kind, text)


def summarize_verdicts(study: StudyResult) -> tuple[str, ...]:
    """:return: what the whole study allows to say: sentences, the most important first"""
    verdicts = [
        verdict
        for environment in study.environments
        for comparison in environment.comparisons
        if comparison.measure == primary_measure(environment)
        for verdict in [judge(comparison, environment, _n_corrected(study, comparison.measure))]
    ]
    return tuple(
        sentence
        for sentence in (
            _missing_cells(study),
            _counts(verdicts, study),
            *(_named(verdicts, kind) for kind in KINDS[:4]),
            _clearly_best_overall(study),
            _limits(study),
            _diverged(study),
        )
        if sentence
    )


def update_notes(environment: EnvironmentResult) -> tuple[str, ...]:
    """:return: one sentence per variant whose VGS left the update as it was and so cannot have mattered"""
    notes = []
    for variant in environment.variants:
        reasons = [reason for reason in _reasons_of_no_change(variant, environment.variants) if reason]
        if reasons:
            notes.append(f"VGS hardly changed what {variant.variant} did: {'; '.join(reasons)}.")
    return tuple(notes)


def clear_best(estimates: Iterable[tuple[str, Estimate | None]]) -> str | None:
    """
    :param estimates: names and values, where more is better
    :return: the name whose interval lies above those of all others; None if there is none, as where one of them has
        no interval
    """
    known = [(name, estimate) for name, estimate in estimates if estimate is not None]
    if len(known) < 2:
        return None
    (name, best), *others = sorted(known, key=lambda item: item[1].value, reverse=True)
    if best.low is None or any(other.high is None or other.high >= best.low for _, other in others):
        return None
    return name


def smallest_p(n: int, m: int) -> float:
    """:return: the least two-sided p-value that a Mann-Whitney U test without ties can reach with n and m seeds"""
    return min(2 / math.comb(n + m, n), 1.0)


def _kind(comparison: Comparison) -> Kind:
    low, high = comparison.difference.low, comparison.difference.high
    if low is None or high is None:
        return "one seed"
    if low <= 0 <= high:
        return "open"
    if comparison.p_holm < SIGNIFICANCE:
        return "higher" if low > 0 else "lower"
    return "perhaps higher" if low > 0 else "perhaps lower"


def _n_seeds(environment: EnvironmentResult, name: str, measure: str) -> int:
    variant = next(variant for variant in environment.variants if variant.variant == name)
    estimate: Estimate | None = getattr(variant, measure)
    return 0 if estimate is None else estimate.n


def _n_corrected(study: StudyResult, measure: str) -> int:
    return sum(
        comparison.measure == measure for environment in study.environments for comparison in environment.comparisons
    )


def _against(seeds: Sequence[int]) -> str:
    return f"{counted(seeds[0], 'seed')} against {seeds[1]}"


def _ranks(comparison: Comparison, seeds: Sequence[int]) -> str:
    n_pairs = seeds[0] * seeds[1]
    n_better = round(comparison.probability.value * n_pairs * 2) / 2  # ties count one half
    return (
        f"better in {n_better:g} of {n_pairs} pairs of seeds (probability of improvement "
        f"{comparison.probability.value:.2f}; Holm-corrected p {p_value(comparison.p_holm)})"
    )


def _why_not_certain(seeds: Sequence[int], n_corrected: int) -> str:
    least = smallest_p(seeds[0], seeds[1]) * n_corrected
    if n_corrected > 1 and least >= SIGNIFICANCE:
        return f"The rank test could not exclude chance: with so few seeds p stays above {p_value(min(least, 1.0))}."
    return "The rank test does not exclude chance: take it as a lead."


def _missing_cells(study: StudyResult) -> str | None:
    missing = study.n_cells - study.n_done
    if not missing:
        return None
    return f"{missing} of {counted(study.n_cells, 'cell')} are missing, so all of this is preliminary."


def _counts(verdicts: Sequence[Verdict], study: StudyResult) -> str:
    if not verdicts:
        return f"Nothing can be compared: no variant beside {study.baseline} has a finished cell."
    counts = {kind: sum(verdict.kind == kind for verdict in verdicts) for kind in KINDS}
    measures = listed([MEASURES[name] for name in dict.fromkeys(verdict.comparison.measure for verdict in verdicts)])
    if counts["one seed"] == len(verdicts):
        return f"One seed each: nothing can be concluded about the {measures}, whatever the curves look like."
    start = f"Of {counted(len(verdicts), 'comparison')} with {study.baseline} by {measures}, Holm-corrected, "
    parts = [f"{counts[kind]} came out {kind}" for kind in KINDS[:2] if counts[kind]]
    parts = parts or ["none came out higher or lower"]
    leads = counts["perhaps higher"] + counts["perhaps lower"]
    if leads:
        parts.append(f"{leads} {'is a lead' if leads == 1 else 'are leads'} that chance may explain")
    if counts["open"]:
        parts.append(f"in {counts['open']} no difference can be told")
    if counts["one seed"]:
        parts.append(f"{counts['one seed']} with one seed allow no conclusion")
    return f"{start}{'; '.join(parts)}."


def _named(verdicts: Sequence[Verdict], kind: Kind) -> str | None:
    chosen = [verdict.comparison for verdict in verdicts if verdict.kind == kind]
    if not chosen:
        return None
    by_environment: dict[str, list[str]] = {}
    for comparison in chosen:
        by_environment.setdefault(comparison.env_id, []).append(
            f"{comparison.variant} ({signed(comparison.difference.value)})"
        )
    places = "; ".join(f"{listed(names)} on {env_id}" for env_id, names in by_environment.items())
    return f"{kind.capitalize()} than {chosen[0].baseline}: {places}."


def _clearly_best_overall(study: StudyResult) -> str | None:
    if not study.normalized:
        return None
    best = clear_best(study.normalized.items())
    if best is None:
        return "Over all environments together no variant stands out: the intervals of the best ones overlap."
    estimate = study.normalized[best]
    return (
        f"Over all environments together {best} was best: {number(estimate.value)} ({interval(estimate)}) of the range "
        "between the worst and the best cell."
    )


def _limits(study: StudyResult) -> str | None:
    n_seeds = len(study.seeds)
    if n_seeds == 1:
        return None
    texts = []
    if n_seeds < FEW_SEEDS:
        texts.append(f"With {n_seeds} seeds the intervals are narrower than they should be; do not trust a small gap.")
    measures = dict.fromkeys(primary_measure(environment) for environment in study.environments)
    n_corrected = max((_n_corrected(study, measure) for measure in measures), default=0)
    least = smallest_p(n_seeds, n_seeds) * n_corrected
    if least >= SIGNIFICANCE:
        needed = next(n for n in range(n_seeds, 100) if smallest_p(n, n) * n_corrected < SIGNIFICANCE)
        texts.append(
            f"What the data cannot tell: {n_seeds} seeds and a correction for {counted(n_corrected, 'comparison')} "
            f"leave no p below {p_value(min(least, 1.0))}, however large the difference; it takes {needed} seeds."
        )
    return " ".join(texts) or None


def _diverged(study: StudyResult) -> str | None:
    diverged = [
        f"{variant.n_diverged} of {variant.n_seeds} of {variant.variant} on {environment.env_id}"
        for environment in study.environments
        for variant in environment.variants
        if variant.n_diverged
    ]
    return f"Diverged, and counted with the last return that they reached: {'; '.join(diverged)}." if diverged else None


def _reasons_of_no_change(variant: VariantResult, variants: Sequence[VariantResult]) -> Iterable[str | None]:
    factor = variant.diagnostics.get("vgs/scaling_factor")
    if factor is None:
        return
    if factor >= FACTOR_NEAR_ONE:
        yield f"its mean scaling factor was {factor:.3f}"
    clipped = variant.diagnostics.get("vgs/clip_fraction")
    if clipped is not None and clipped >= CLIPPING_NEAR_ALWAYS:
        yield f"{100 * clipped:.0f} % of the updates were clipped after scaling, which undoes a common factor"
    off = _same_without_vgs(variant, variants)
    ratio = variant.diagnostics.get("vgs/update_ratio")
    other = off.diagnostics.get("vgs/update_ratio") if off else None
    if off and ratio and other and abs(ratio / other - 1) <= RATIO_TOLERANCE:
        yield f"its updates were as large as those of {off.variant} (update ratio {number(ratio)} and {number(other)})"


def _same_without_vgs(variant: VariantResult, variants: Sequence[VariantResult]) -> VariantResult | None:
    """:return: the variant without VGS whose name has the same other parts, as ``adam+vgs-off`` for ``adam+vgs-3.0``"""

    def others(name: str) -> list[str]:
        return [part for part in name.split("+") if not _OF_VGS.fullmatch(part)]

    for candidate in variants:
        is_off = candidate.diagnostics.get("vgs/scaling_factor") is None
        if is_off and others(candidate.variant) == others(variant.variant):
            return candidate
    return None
