"""Verdicts claim no more than intervals, the corrected test and the number of seeds allow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sb3_vgs_ppo.studies.results import Comparison, EnvironmentResult, Estimate, StudyResult, VariantResult
from sb3_vgs_ppo.studies.verdicts import (
    Verdict,
    clear_best,
    judge,
    judge_study,
    primary_measure,
    smallest_p,
    summarize_verdicts,
    update_notes,
)

from .synthetic import BASELINE, CARTPOLE, CONTINUAL, FIVE, make_study


@pytest.fixture(scope="module")
def study() -> StudyResult:
    return make_study(n_seeds=8, points=24)


def verdict(
    difference: tuple[float, float | None, float | None],
    *,
    probability: float = 0.88,
    p_holm: float = 0.03,
    measure: str = "final",
    n_seeds: int = 5,
    n_corrected: int = 4,
) -> Verdict:
    environment = make_study((CONTINUAL,), n_seeds=n_seeds, points=24).environments[0]
    comparison = Comparison(
        env_id=CONTINUAL.env_id,
        variant="adam+vgs-3.0",
        baseline=BASELINE,
        measure=measure,
        difference=Estimate(*difference, n_seeds),
        probability=Estimate(probability, 0.6, 1.0, n_seeds),
        p_value=p_holm / 4,
        p_holm=p_holm,
    )
    return judge(comparison, environment, n_corrected)


def test_a_difference_that_holds() -> None:
    found = verdict((84.2, 20.0, 150.0))
    assert found.kind == "higher"
    assert found.text == (
        "adam+vgs-3.0 ended higher than sb3-ppo: +84.2 (95 % interval +20 to +150), better in 22 of 25 pairs of seeds "
        "(probability of improvement 0.88; Holm-corrected p 0.03)."
    )


def test_lower_in_the_late_phases() -> None:
    found = verdict((-84.2, -150.0, -20.0), measure="late_phases", probability=0.1)
    assert found.kind == "lower"
    assert found.text.startswith(
        "adam+vgs-3.0 was lower than sb3-ppo in the late phases: −84.2 (95 % interval −150 to −20), better in 2.5 of 25"
    )


def test_an_interval_that_spans_zero_tells_nothing() -> None:
    found = verdict((12.0, -30.0, 45.0), p_holm=1.0, probability=0.56)
    assert found.kind == "open"
    assert found.text == (
        "adam+vgs-3.0 and sb3-ppo: no difference in the final return can be told: +12, and the 95 % interval spans "
        "−30 to +45; better in 14 of 25 pairs of seeds (probability of improvement 0.56; Holm-corrected p 1)."
    )


def test_zero_at_the_end_of_an_interval_is_inside() -> None:
    assert verdict((12.0, 0.0, 45.0)).kind == "open"
    assert verdict((-12.0, -45.0, 0.0)).kind == "open"


def test_an_interval_above_zero_without_the_test_is_a_lead() -> None:
    found = verdict((84.2, 20.0, 150.0), p_holm=0.05)
    assert found.kind == "perhaps higher"
    assert found.text.startswith("adam+vgs-3.0 may have ended higher than sb3-ppo: +84.2")
    assert found.text.endswith("The rank test does not exclude chance: take it as a lead.")


def test_a_lead_says_when_no_result_could_have_been_more() -> None:
    found = verdict((84.2, 20.0, 150.0), p_holm=0.12, n_corrected=15)
    assert found.text.endswith("with so few seeds p stays above 0.12.")  # 15 x 2 / 252


def test_one_seed_allows_no_conclusion() -> None:
    found = verdict((84.2, None, None), p_holm=0.001, n_seeds=1)
    assert found.kind == "one seed"
    assert "nothing can be concluded about the final return" in found.text
    assert "with 1 seed against 1 chance alone may have made it" in found.text
    assert "higher" not in found.text


@pytest.mark.parametrize(("n", "m", "p"), [(1, 1, 1.0), (3, 3, 0.1), (5, 5, 2 / 252), (4, 6, 2 / 210)])
def test_smallest_p_of_the_rank_test(n: int, m: int, p: float) -> None:
    from scipy.stats import mannwhitneyu

    assert smallest_p(n, m) == pytest.approx(p)
    separated = mannwhitneyu(range(n), range(100, 100 + m), method="exact")
    assert smallest_p(n, m) == pytest.approx(separated.pvalue)


def test_the_late_phases_are_judged_first_where_the_task_changes(study: StudyResult) -> None:
    assert [primary_measure(environment) for environment in study.environments] == ["final", "late_phases", "final"]


def test_the_study_counts_each_environment_once(study: StudyResult) -> None:
    verdicts = judge_study(study)
    assert len(verdicts) == sum(len(environment.comparisons) for environment in study.environments)
    counts = summarize_verdicts(study)[0]
    assert counts.startswith(
        "Of 12 comparisons with sb3-ppo by final return and return in the late phases, Holm-corrected, "
    )
    primary = [
        v for v in verdicts if v.comparison.measure == ("late_phases" if "Con" in v.comparison.env_id else "final")
    ]
    n_open = sum(v.kind == "open" for v in primary)
    assert n_open > 0
    assert f"in {n_open} no difference can be told" in counts


def test_the_study_names_what_held_and_what_diverged(study: StudyResult) -> None:
    text = "\n".join(summarize_verdicts(study))
    assert "\nLower than sb3-ppo: upgd+vgs-3.0 (−" in text
    assert (
        "\nDiverged, and counted with the last return that they reached: 1 of 8 of upgd+vgs-3.0 on CartPole-v1" in text
    )
    assert "preliminary" not in text


def test_missing_cells_come_first() -> None:
    sentences = summarize_verdicts(make_study((CARTPOLE,), points=24, missing=7))
    assert sentences[0] == "7 of 25 cells are missing, so all of this is preliminary."


def test_what_the_seeds_cannot_tell() -> None:
    names = (BASELINE, *(f"adam+vgs-{i}.0" for i in range(1, 9)))
    text = " ".join(summarize_verdicts(make_study((CARTPOLE,), names, points=24)))
    # 8 x 2 / 252 = 0.063; with 6 seeds 8 x 2 / 924 = 0.017
    assert (
        "5 seeds and a correction for 8 comparisons leave no p below 0.06, however large the difference; it takes 6"
        in text
    )
    assert "narrower" not in text
    assert "With 3 seeds the intervals are narrower" in " ".join(summarize_verdicts(make_study((CARTPOLE,), n_seeds=3)))


def test_one_seed_each() -> None:
    sentences = summarize_verdicts(make_study((CARTPOLE,), n_seeds=1, points=24))
    assert sentences[0].startswith("One seed each: nothing can be concluded about the final return")
    assert not any("igher" in sentence or "best" in sentence for sentence in sentences)


def test_nothing_but_the_baseline() -> None:
    sentences = summarize_verdicts(make_study((CARTPOLE,), (BASELINE,), points=24))
    assert sentences[0] == "Nothing can be compared: no variant beside sb3-ppo has a finished cell."


@pytest.mark.parametrize(
    ("estimates", "best"),
    [
        ({"a": (3.0, 2.1, 4.0), "b": (1.0, 0.0, 2.0)}, "a"),
        ({"a": (3.0, 2.0, 4.0), "b": (1.0, 0.0, 2.0)}, None),
        ({"a": (3.0, 2.1, 4.0), "b": (1.0, 0.0, 2.0), "c": (2.0, None, None)}, None),
        ({"a": (3.0, None, None), "b": (1.0, 0.0, 2.0)}, None),
        ({"a": (3.0, 2.1, 4.0), "b": (1.0, 0.0, 2.0), "c": (0.0, -1.0, 2.5)}, None),  # the third reaches the best one
        ({"a": (3.0, 2.0, 4.0)}, None),
    ],
)
def test_best_only_where_no_other_interval_reaches_it(
    estimates: dict[str, tuple[float, float | None, float | None]], best: str | None
) -> None:
    assert clear_best((name, Estimate(*values, 5)) for name, values in estimates.items()) == best


def notes(name: str = "upgd+vgs-3.0", **diagnostics: float | None) -> tuple[str, ...]:
    """Notes on one variant whose diagnostics are changed; those of ``upgd+vgs-off`` have update ratio 0.01."""
    environment = make_study((CARTPOLE,), FIVE, points=24).environments[0]

    def changed(variant: VariantResult) -> VariantResult:
        values: dict[str, float | None] = {
            "vgs/scaling_factor": 0.5,
            "vgs/clip_fraction": 0.2,
            "vgs/update_ratio": 0.02,
        }
        if variant.variant == "upgd+vgs-off":
            values = {"vgs/scaling_factor": None, "vgs/clip_fraction": 1.0, "vgs/update_ratio": 0.01}
        elif variant.variant == name:
            values |= {f"vgs/{key}": value for key, value in diagnostics.items()}
        return replace(variant, diagnostics=values)

    made: EnvironmentResult = replace(environment, variants=tuple(map(changed, environment.variants)))
    return update_notes(made)


def test_a_version_that_acts_has_no_note() -> None:
    assert notes() == ()


def test_a_version_that_left_the_update_as_it_was() -> None:
    (factor,) = notes(scaling_factor=0.998)
    assert factor == "VGS hardly changed what upgd+vgs-3.0 did: its mean scaling factor was 0.998."
    (clipped,) = notes(clip_fraction=0.97)
    assert "97 % of the updates were clipped after scaling" in clipped
    (ratio,) = notes(update_ratio=0.0101)
    assert ratio.endswith("as large as those of upgd+vgs-off (update ratio 0.0101 and 0.01).")
    assert notes(update_ratio=0.0105) == ()
    assert notes("adam+vgs-3.0", update_ratio=0.01) == ()  # upgd+vgs-off is another optimizer
