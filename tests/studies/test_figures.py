"""Figures hold what they promise, as text inside the SVG and as bytes that do not change."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sb3_vgs_ppo.studies.figures import draw_study, figure_stem, needs_log_scale, phase_changes, shown_metrics
from sb3_vgs_ppo.studies.palette import LIGHT_INK

from .synthetic import CARTPOLE, CONTINUAL, DIAGNOSTICS, FIVE, SIXTEEN, make_study

STUDY = make_study((CONTINUAL,), FIVE[:3], points=24, metrics=DIAGNOSTICS[:1])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("figures")
    draw_study(STUDY, out)
    return out


def texts(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))


def test_files(drawn: Path) -> None:
    stems = ("ContinualCartPole-v0_return", "ContinualCartPole-v0_vgs", "probability_of_improvement")
    assert sorted(path.name for path in drawn.iterdir()) == [
        f"{stem}{kind}" for stem in stems for kind in (".png", ".svg")
    ]
    for stem in stems:
        assert (drawn / f"{stem}.png").read_bytes().startswith(b"\x89PNG")


def test_every_variant_is_named_in_letters(drawn: Path) -> None:
    assert set(FIVE[:3]) <= set(texts(drawn / "ContinualCartPole-v0_return.svg"))
    assert set(FIVE[1:3]) <= set(texts(drawn / "ContinualCartPole-v0_vgs.svg"))  # the baseline has no VGS
    assert set(FIVE[1:3]) <= set(texts(drawn / "probability_of_improvement.svg"))
    assert "return in the late phases" in texts(drawn / "probability_of_improvement.svg")
    assert "scaling factor of the gradients" in texts(drawn / "ContinualCartPole-v0_vgs.svg")


def test_the_same_result_gives_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    files = draw_study(STUDY, tmp_path)
    assert len(files) == 6
    assert [path.name for path in files if path.read_bytes() != (drawn / path.name).read_bytes()] == []


def test_more_than_eight_variants_get_a_panel_each(tmp_path: Path) -> None:
    draw_study(make_study((CARTPOLE,), SIXTEEN[:9], points=5, metrics=()), tmp_path)
    svg = tmp_path / "CartPole-v1_return.svg"
    assert len(re.findall(r'id="axes_\d+"', svg.read_text())) == 8
    assert [text for text in texts(svg) if "+" in text] == list(SIXTEEN[1:9])
    assert not (tmp_path / "CartPole-v1_vgs.svg").exists()


def test_one_seed_and_an_environment_without_a_finished_cell(tmp_path: Path) -> None:
    study = make_study((CARTPOLE, CONTINUAL), FIVE[:3], n_seeds=1, points=12, metrics=DIAGNOSTICS[:1])
    first, second = study.environments
    empty = replace(second, variants=(), comparisons=(), bands=second.bands[:0])
    files = draw_study(replace(study, environments=(first, empty)), tmp_path)
    assert "ContinualCartPole-v0_return.png" in [path.name for path in files]
    assert "ContinualCartPole-v0_vgs.png" not in [path.name for path in files]
    assert set(FIVE[:3]) <= set(texts(tmp_path / "CartPole-v1_return.svg"))


def test_plasticity_has_a_figure_of_its_own(tmp_path: Path) -> None:
    metrics = ("vgs/scaling_factor", "plasticity/actor_effective_rank")
    draw_study(make_study((CARTPOLE,), FIVE[:2], 1, points=5, metrics=metrics), tmp_path)
    found = texts(tmp_path / "CartPole-v1_plasticity.svg")
    assert {"CartPole-v1: plasticity of the networks", "effective rank of the actor's features"} <= {
        text.replace("&#x27;", "'") for text in found
    }
    assert "scaling factor of the gradients" not in found


def marks(svg: Path) -> int:
    """Marks in a variant's colour: those of the axes have that of the text."""
    return len(re.findall(rf"<use [^>]*stroke: (?!{LIGHT_INK})", svg.read_text(encoding="utf-8")))


def test_alarms_are_marked_below_the_curves(drawn: Path, tmp_path: Path) -> None:
    tested = make_study((CONTINUAL,), FIVE[:3], points=24, metrics=(), tested=FIVE[1:3])
    draw_study(tested, tmp_path)
    name = "ContinualCartPole-v0_return.svg"
    # Two variants with five seeds, ten changes found and one alarm else
    assert (marks(tmp_path / name), marks(drawn / name)) == (2 * 5 * 11, 0)
    assert any("marks: alarms of all seeds" in text for text in texts(tmp_path / name))
    assert not any("alarms" in text for text in texts(drawn / name))


def test_alarms_are_marked_in_the_panel_of_their_variant(tmp_path: Path) -> None:
    draw_study(make_study((CONTINUAL,), SIXTEEN[:9], 2, points=12, metrics=(), tested=SIXTEEN[:3]), tmp_path)
    assert marks(tmp_path / "ContinualCartPole-v0_return.svg") == 2 * 2 * 11  # the baseline has no panel


def test_phases_change_between_the_ends() -> None:
    continual = STUDY.environments[0]
    assert phase_changes(continual) == list(range(40_000, 480_000, 40_000))
    assert phase_changes(replace(continual, phase_length=None)) == []


def test_known_metrics_come_first_and_the_return_is_none_of_them() -> None:
    bands = pd.DataFrame({"metric": ["own/x", "vgs/update_ratio", "return", "vgs/scaling_factor", "own/x"]})
    assert shown_metrics(bands) == ["vgs/scaling_factor", "vgs/update_ratio", "own/x"]


@pytest.mark.parametrize(
    ("values", "log"),
    [([1.0, 101.0], True), ([1.0, 99.0], False), ([0.0, 1e6], False), ([1.0, float("nan"), 1e6], True), ([], False)],
)
def test_log_scale(values: list[float], log: bool) -> None:
    assert needs_log_scale(pd.Series(values, dtype=float)) == log


def test_file_names_of_namespaced_environments() -> None:
    assert figure_stem("ALE/Pong-v5") == "ALE_Pong-v5"
