"""The command ``report`` on a study whose cells are made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sb3_vgs_ppo.cli.main import main
from sb3_vgs_ppo.studies.definition import Cell, Study, Variant
from sb3_vgs_ppo.studies.store import StudyStore

ENVIRONMENT = "CartPole-v1"


@pytest.fixture
def store(tmp_path: Path) -> StudyStore:
    """Two variants and two seeds, where the last cell is missing: returns 10 and 12 against 30."""
    variants = (Variant("adam", {"optimizer": "adam"}), Variant("upgd", {"optimizer": "upgd"}))
    study = Study((ENVIRONMENT,), variants, seeds=(0, 1), total_timesteps=1_000, baseline="adam")
    store = StudyStore.create_or_open(tmp_path / "study", study)
    for variant, seed, reward in (("adam", 0, 10.0), ("adam", 1, 12.0), ("upgd", 0, 30.0)):
        folder = store.folder(Cell(ENVIRONMENT, variant, seed))
        (folder / "monitor").mkdir(parents=True)
        (folder / "monitor" / "0.monitor.csv").write_text("#{}\nr,l,t\n" + f"{reward},50,0.1\n" * 20)
        (folder / "config.json").write_text(json.dumps({"options": {}, "versions": {"torch": "2.13.0"}, "git": None}))
        summary = {"final_mean_reward": reward + 1, "steps_per_second": 500.0}
        status = {"state": "finished", "num_timesteps": 1_000, "cause": None, "summary": summary}
        (folder / "status.json").write_text(json.dumps(status))
        store.mark_done(Cell(ENVIRONMENT, variant, seed))
    return store


def test_prints_the_table_what_is_missing_and_the_file(store: StudyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(store.path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "CartPole-v1, 1,000 steps"
    assert lines[1].startswith("adam final return 11 (10 to 12); evaluation 12 (11 to 13); mean return")
    upgd = " ".join(lines[lines.index(next(line for line in lines if line.startswith("upgd"))) :])
    assert upgd.startswith("upgd final return 30 (no interval); evaluation 31 (no interval);")
    assert "1 of 2 missing" in upgd
    assert "1 of 4 cells are missing, so all of this is preliminary." in lines
    page = store.path / "report" / "report.html"
    assert lines[-1] == f"Report: {page}"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_another_folder(store: StudyStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(store.path), "--out", str(tmp_path / "elsewhere")]) == 0
    assert f"Report: {tmp_path / 'elsewhere' / 'report.html'}" in capsys.readouterr().out
    assert not (store.path / "report").exists()


def test_a_damaged_cell_is_one_line(store: StudyStore, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = store.folder(Cell(ENVIRONMENT, "adam", 1)) / "monitor" / "0.monitor.csv"
    damaged.write_text(damaged.read_text() + "500,50,0.1\n")
    assert main(["report", str(store.path)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(
        f"error: CartPole-v1 / adam / seed 1: {damaged} was changed after the cell was done; remedy: "
    )
    assert (out, err.count("\n")) == ("", 1)
    assert not (store.path / "report").exists()


def test_what_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert f"error: {tmp_path} is not a study" in capsys.readouterr().err


def test_a_part_of_a_study(store: StudyStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = ["report", str(store.path), "--variants", "optimizer", "--baseline", "upgd"]
    assert main(part) == 2
    assert "a report of a part would replace that of" in capsys.readouterr().err
    assert main([*part, "--out", str(tmp_path / "part")]) == 2
    assert "variant 'adamw' is not in the study" in capsys.readouterr().err
    part[3] = "adam"
    assert main([*part, "--out", str(tmp_path / "part")]) == 0
    assert json.loads((tmp_path / "part" / "summary.json").read_text())["baseline"] == "upgd"
