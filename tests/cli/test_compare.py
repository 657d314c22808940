"""``compare``: from options to a study, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import needs
from sb3_vgs_ppo.cli.compare import CompareOptions, open_store, run
from sb3_vgs_ppo.cli.main import main
from sb3_vgs_ppo.errors import StudyError, UserInputError
from sb3_vgs_ppo.studies.store import StudyStore

ARGV = ["--env-ids", "CartPole-v1", "--variants", "vgs-off", "vgs-3.0", "--seeds", "2", "--total-timesteps", "1e3"]


def test_flags_define_a_study(tmp_path: Path) -> None:
    options = CompareOptions(
        out=tmp_path / "study",
        env_ids=("CartPole-v1", "Pendulum-v1"),
        variants=("baseline", "adam+vgs-3.0"),
        seeds=3,
        total_timesteps=1000,
        options={"n_envs": 4},
    )
    study = open_store(options).study
    assert study.env_ids == ("CartPole-v1", "Pendulum-v1")
    assert [variant.name for variant in study.variants] == ["sb3-ppo", "adam+vgs-3.0"]
    assert study.seeds == (0, 1, 2)
    assert study.baseline == "sb3-ppo"
    assert study.total_timesteps == 1000
    assert study.options == {"n_envs": 4}


def test_flags_win_over_the_file_and_options_are_merged(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "env_ids: [CartPole-v1]\nvariants: [vgs-off, vgs-3.0]\nseeds: 7\nbaseline: vgs-3.0\n"
        "options: {n_envs: 2, algo_kwargs: {gamma: 0.9}}\n"
    )
    options = CompareOptions(
        out=tmp_path / "study", study=file, seeds=2, options={"algo_kwargs": {"gae_lambda": 0.8}}, baseline="vgs-off"
    )
    study = open_store(options).study
    assert study.seeds == (0, 1)
    assert study.baseline == "vgs-off"
    assert study.options == {"n_envs": 2, "algo_kwargs": {"gamma": 0.9, "gae_lambda": 0.8}}


def test_a_folder_alone_goes_on_with_its_study(tmp_path: Path) -> None:
    first = open_store(CompareOptions(out=tmp_path, env_ids=("CartPole-v1",), variants=("vgs-off", "vgs-3.0")))
    assert open_store(CompareOptions(out=tmp_path)).study == first.study


def test_more_seeds_need_extend(tmp_path: Path) -> None:
    def options(seeds: int, *, extend: bool = False) -> CompareOptions:
        variants = ("vgs-off", "vgs-3.0")
        return CompareOptions(out=tmp_path, env_ids=("CartPole-v1",), variants=variants, seeds=seeds, extend=extend)

    open_store(options(2))
    with pytest.raises(StudyError, match=r"seeds: \[0, 1\] -> \[0, 1, 2\]; remedy: .*--extend"):
        open_store(options(3))
    assert open_store(options(3, extend=True)).study.seeds == (0, 1, 2)
    assert StudyStore.open(tmp_path).study.seeds == (0, 1, 2)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "holds no study yet; remedy: --env-ids and --variants, or --study"),
        ([*ARGV, "--workers", "0"], "--workers 0 is too small"),
        ([*ARGV, "--env-ids", "CartPol-v1"], "'CartPol-v1' is not registered"),
        ([*ARGV, "--variants", "vgs-9"], "vgs-9"),
        ([*ARGV, "--variants", "adam", "adam"], "adam"),
        ([*ARGV, "--baseline", "sb3"], "baseline 'sb3' is not among the variants"),
        ([*ARGV, "--options", '{"seed": 1}'], "seed"),
        ([*ARGV, "--engine", "dask"], "dask"),
        ([*ARGV, "--study", "no.yaml"], "no.yaml"),
        pytest.param(
            [*ARGV, "--engine", "ray", "--address", "127.0.0.1:1"],
            "--address '127.0.0.1:1': no Ray cluster",
            marks=needs("ray", "ray"),
        ),
    ],
)
def test_what_cannot_be_run_is_one_line_and_leaves_no_cell(tmp_path: Path, argv: list[str], complaint: str) -> None:
    with pytest.raises(UserInputError, match=complaint) as caught:
        run(["--out", str(tmp_path / "study"), *argv], prog="sb3-vgs-ppo compare")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study" / "cells").exists()


def test_failed_cells_are_named_and_the_exit_code_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--out", str(tmp_path / "study"), *ARGV, "--no-report"]
    argv += ["--workers", "1", "--options", '{"algo_kwargs": {"policy_kwargs": {"net_arch": "tiny"}}}']
    assert main(["compare", *argv]) == 1
    assert "failed: CartPole-v1 / vgs-off / seed 0: " in (err := capsys.readouterr().err)
    assert "4 cells failed; the same command tries them again" in err
