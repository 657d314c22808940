from __future__ import annotations

import io
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.train import TrainOptions, read_options
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.presets import PRESETS
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.scaling import KNOWN_VERSIONS


@dataclass(frozen=True)
class Options:
    """Fly to the moon."""

    engines: int = 2
    """Number of engines."""
    fuel: Literal["hydrogen", "kerosene"] = "kerosene"
    """What burns."""
    crew: dict[str, Any] = field(default_factory=dict)
    """Names and tasks."""
    return_trip: bool = True
    """Come back."""


def parse(*argv: str, default: Options | None = None) -> Options:
    return parse_options(Options, argv, prog="rocket fly", default=default)


def test_flags_become_fields() -> None:
    assert parse() == Options()
    assert parse("--engines", "1e3", "--fuel=hydrogen", "--crew", '{"eve": {"age": 3}}', "--no-return-trip") == Options(
        1000, "hydrogen", {"eve": {"age": 3}}, False
    )
    assert parse("--return_trip", "--engines=5") == Options(engines=5)


def test_flags_win_over_defaults_of_a_file() -> None:
    default = Options(engines=7, fuel="hydrogen", crew={"eve": 1}, return_trip=False)
    assert parse(default=default) == default
    assert parse("--engines", "8", default=default) == Options(8, "hydrogen", {"eve": 1}, False)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--engine", "3"], r"no option '--engine'; did you mean '--engines'\?"),
        (["--engine=3"], r"no option '--engine'; did you mean '--engines'\?"),
        (["--gold", "3"], r"no option '--gold'; see rocket fly --help"),
        (["-e", "3"], r"no option '-e'; see rocket fly --help"),
        (["3"], r"unexpected argument '3'; see rocket fly --help"),
        (["--engines", "many"], r"--engines: 'many' is not a whole number; see rocket fly --help"),
        (["--engines", "many", "--fuel", "-5"], r"--engines: 'many' is not|invalid choice '-5'"),
        (["--engines"], r"Missing value for argument '--engines'"),
        (
            ["--fuel", "coal"],
            r"invalid choice 'coal' for argument '--fuel'. Expected one of \('hydrogen', 'kerosene'\)",
        ),
        (["--crew", "{"], r"--crew: '\{' is not JSON \(.*\); write e.g. '\{"),
        (["--crew", "[1]"], r"--crew: '\[1\]' is not a JSON object"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_cannot_be_understood_is_one_line(
    argv: list[str], message: str, encoding: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))  # tyro's boxes depend on it
    with pytest.raises(UserInputError, match=message) as caught:
        parse(*argv)
    assert "\n" not in str(caught.value)
    assert not set(str(caught.value)) & set("│─")
    assert "---" not in str(caught.value)
    assert capsys.readouterr().err == ""


def test_help_of_train_is_complete(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        parse_options(TrainOptions, ["--help"], prog="sb3-vgs-ppo train")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in fields(TrainOptions):
        assert f"--{option.name.replace('_', '-')}" in text
    assert "--no-progress" in text
    assert "--debug" in text
    assert f"off, {', '.join(KNOWN_VERSIONS[:-1])} or {KNOWN_VERSIONS[-1]}" in text
    # Every option has a help text beside its default
    assert text.count("(default:") == len(fields(TrainOptions))


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 5\nn_envs: 3\nnormalize: true\nalgo_kwargs: {gamma: 0.5}\n")
    assert read_options(["--config", str(path), "--n-envs", "4"], "train") == TrainConfig(
        seed=5, n_envs=4, normalize=True, algo_kwargs={"gamma": 0.5}
    )
    assert read_options([f"--config={path}", "--no-normalize"], "train").normalize is False
    assert read_options([], "train") == TrainConfig()


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = {"optimizer": "adam", "vgs_version": "off", "n_envs": 2, "algo_kwargs": {"gamma": 0.5, "n_epochs": 3}}
    monkeypatch.setitem(PRESETS, "tuned", preset)
    path = tmp_path / "run.yaml"
    path.write_text("n_envs: 3\nvgs_version: 1.0\n")
    flags = ["--preset", "tuned", "--config", str(path), "--n-envs", "4", "--algo-kwargs", '{"gamma": 0.9}']
    assert read_options(flags, "train") == TrainConfig(
        preset="tuned", optimizer="adam", vgs_version="1.0", n_envs=4, algo_kwargs={"gamma": 0.9, "n_epochs": 3}
    )
    assert read_options(["--preset=tuned"], "train") == TrainConfig(preset="tuned", **preset)


def test_presets_in_the_help_and_one_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserInputError, match=r"^preset 'tund' is not known; remedy: continual$"):
        read_options(["--preset", "tund"], "train")
    with pytest.raises(SystemExit):
        read_options(["--help"], "train")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, options in PRESETS.items():
        assert all(f"{option} {value}" in text for option, value in options.items()), name


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"--config .*nowhere.yaml cannot be read: No such file or directory"):
        read_options(["--config", str(tmp_path / "nowhere.yaml")], "train")
    with pytest.raises(UserInputError, match=r"Missing value for argument '--config'"):
        read_options(["--config"], "train")
