"""The page as text: what stands in it, what is escaped, and that it asks nothing of a network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.definition import Cell
from sb3_vgs_ppo.studies.report import render_page, write_report
from sb3_vgs_ppo.studies.store import StudyStore

from .synthetic import CARTPOLE, CONTINUAL, FIVE, Task, make_study

COMMAND = "sb3-vgs-ppo compare --study study.json --out again"


def page_of(tasks: tuple[Task, ...] = (CARTPOLE, CONTINUAL), **options: object) -> str:
    """The page without plotly.js."""
    study = make_study(tasks, points=24, **options)  # type: ignore[arg-type]
    page = render_page(study, {"env_ids": [task.env_id for task in tasks]}, COMMAND)
    head, _, rest = page.partition("<script>/**")
    return head + rest.partition("</script>")[2]


def words_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(n_seeds=8)


def test_verdicts_come_first(page: str) -> None:
    words = words_of(page)
    order = [
        "5 variants on CartPole-v1 and ContinualCartPole-v0",
        "8 seeds, 80 of 80 cells done; all variants are compared with sb3-ppo.",
        "Of 8 comparisons with sb3-ppo",
        "Diverged, and counted with the last return that they reached: 1 of 8 of upgd+vgs-3.0",
        "Over all environments Mean return",
        "upgd+vgs-3.0 ended lower than sb3-ppo:",
        "What VGS and training did meanwhile",
        "Against sb3-ppo",
        "the task changes every 40,000 steps",
        "upgd+vgs-3.0 was lower than sb3-ppo in the late phases:",
        "Return at the end of each of the 12 phases",
        "How to read this curve",
        COMMAND,
        "0123abc, 4567def",
    ]
    places = [words.find(text) for text in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)


def test_plasticity_has_a_heading_of_its_own() -> None:
    page = page_of(n_seeds=1, metrics=("vgs/update_ratio", "plasticity/logit_norm", "plasticity/gate_std"))
    section = page.partition("What VGS and training did meanwhile")[2].partition("<h3>Numbers")[0]
    first, _, second = section.partition("Plasticity of the networks")
    assert re.findall(r'data-metric="(\d)"', first) == ["1"]
    assert re.findall(r'data-metric="(\d)"', second) == ["2", "3"]
    assert "Plasticity" not in page_of(n_seeds=1, metrics=("vgs/update_ratio",))


def test_changes_noticed() -> None:
    first, second = page_of(n_seeds=3, tested=FIVE[1:3]).split('<section class="environment"')[1:3]
    words = words_of(second)
    assert "Changes noticed Over all seeds. The first alarm in the first half of a phase" in words
    assert "changes found delay, median largest other alarms adam+vgs-1.0 30 of 33 1,536 2,048 3 adam+vgs-3.0" in words
    assert "a tick where one found a change" in words
    assert "Nothing changes here" in words_of(first)
    assert "variant alarms adam+vgs-1.0 3 adam+vgs-3.0 3" in words_of(first)
    assert "Changes noticed" not in page_of(n_seeds=3)


def test_calibration_of_the_critics() -> None:
    words = words_of(page_of(n_seeds=3, calibrated=FIVE[1:2]))
    assert "Calibration of the critics Of the discounted returns of the trained, stochastic policy" in words
    header = "variant below the 5 % quantile below the 50 % quantile below the 95 % quantile within 50 % within 90 %"
    row = "adam+vgs-1.0 0.09 0.07 to 0.11 0.48 0.46 to 0.5 – – 0.71 0.69 to 0.73"
    assert f"{header} {row}" in words
    assert "Calibration" not in page_of(n_seeds=3)


def test_tables_hold_the_estimates(page: str) -> None:
    study = make_study((CARTPOLE, CONTINUAL), n_seeds=8, points=24)
    for variant in study.environments[0].variants:
        final = variant.final
        assert final is not None
        assert final.low is not None
        assert f"<strong>{final.value:.3g}</strong>" in page or f"<strong>{final.value:.0f}</strong>" in page
    assert page.count('class="warn">1<') == 1  # one diverged cell, in one environment


def test_the_best_is_marked_only_where_intervals_allow(page: str) -> None:
    overall, _, environments = page.partition('<section class="environment"')
    assert overall.count('class="best"') == 1  # made up with intervals apart
    best = re.findall(r'<td class="best" title="([^"]+)">', environments)
    assert set(best) <= {"its interval lies above all others"}
    assert 'class="best"' not in page_of(n_seeds=1)


def test_one_unfinished_seed() -> None:
    words = words_of(page_of((CARTPOLE,), n_seeds=1, missing=2))
    assert "2 of 5 cells are missing, so all of this is preliminary." in words
    assert "1 seed, 3 of 5 cells done" in words
    assert "One seed each: nothing can be concluded about the final return" in words
    assert "no interval" in words


def test_names_are_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    study = make_study((Task(f"a&b/{evil}-v0", 1_000, 1.0),), ("off", evil), points=5)
    page = render_page(study, {"note": "</script><b>"}, f"compare --out '{evil}'")
    assert evil not in page
    assert "</script><b>" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_nothing_is_loaded(page: str) -> None:
    assert re.findall(r"""(?:src|href)\s*=\s*["']?(?!#)[^"'\s>]+""", page) == []
    assert not re.search(r"@import|url\(", page)
    assert "default-src 'none'" in page


def test_plotly_is_inside_once_and_the_page_is_small_enough() -> None:
    study = make_study(n_seeds=5, points=200)
    page = render_page(study, {}, COMMAND)
    assert page.count("plotly.js v") == 1
    assert len(page.encode()) < 6_000_000


def test_a_study_in_a_folder(make_store: Callable[..., StudyStore], write_cell: Callable[..., None]) -> None:
    store = make_store(("off", "on"), seeds=(0, 1))
    for seed in (0, 1):
        write_cell(store, Cell("CartPole-v1", "off", seed), [[(10.0 + seed, 100)] * 10], evaluation=12.0)
    write_cell(store, Cell("CartPole-v1", "on", 0), [[(20.0, 100)] * 10], evaluation=22.0)
    page, result = write_report(store)
    assert page == store.path / "report" / "report.html"
    assert (result.n_done, result.n_cells) == (3, 4)
    assert "1 of 4 cells are missing" in page.read_text(encoding="utf-8")
    assert {path.name for path in page.parent.iterdir()} == {
        "report.html", "figures", "summary.json", "table.csv", "changes.csv", "curves.csv", "curves.parquet",
    }  # fmt: skip
    assert (page.parent / "figures" / "CartPole-v1_return.svg").exists()


def test_a_folder_that_cannot_be_written(
    make_store: Callable[..., StudyStore], write_cell: Callable[..., None], tmp_path: Path
) -> None:
    store = make_store(("off", "on"), seeds=(0,))
    write_cell(store, Cell("CartPole-v1", "off", 0), [[(10.0, 100)] * 10])
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"file cannot be written: .*; remedy: another --out"):
        write_report(store, tmp_path / "file")


def test_a_study_without_a_finished_cell(make_store: Callable[..., StudyStore]) -> None:
    with pytest.raises(StudyError, match="has no finished cell"):
        write_report(make_store())


def test_every_variant_has_its_colour_for_light_and_dark(page: str) -> None:
    for i, _ in enumerate(FIVE):
        assert len(re.findall(rf"\.v{i} {{ --c: #[0-9a-f]{{6}}; }}", page)) == 2
