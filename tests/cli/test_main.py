from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import sb3_vgs_ppo
from sb3_vgs_ppo.cli import main as cli
from sb3_vgs_ppo.errors import CheckpointError, TrainingDiverged, UserInputError

ROOT = Path(sb3_vgs_ppo.__file__).parent.parent


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out, err = capsys.readouterr()
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in out
        assert command.summary in out
    assert err == ""


def test_no_command_shows_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().out.startswith("usage: sb3-vgs-ppo COMMAND")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{sb3_vgs_ppo.__version__}\n"


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr() == ("", "error: no command 'trian'; did you mean 'train'?\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_can_be_loaded(name: str) -> None:
    assert callable(import_module(cli.COMMANDS[name].module).run)


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (UserInputError("two\n  lines"), 2, "error: two lines\n"),
        (CheckpointError("file.zip: data: missing"), 2, "error: file.zip: data: missing\n"),
        (TrainingDiverged(["w"], 3, 40), 1, "error: 3 updates in a row had a non-finite loss"),
        (KeyboardInterrupt(), 130, "error: stopped\n"),
        (KeyboardInterrupt("stopped at once; saved"), 130, "error: stopped at once; saved\n"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_become_one_line_and_an_exit_code(
    error: BaseException,
    exit_code: int,
    line: str,
    debug: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[list[str]] = []

    def run(argv: list[str], prog: str) -> int:
        seen.append(argv)
        raise error

    monkeypatch.setattr("sb3_vgs_ppo.cli.train.run", run)
    assert cli.main(["train", "--seed", "3", *["--debug"] * debug]) == exit_code
    assert seen == [["--seed", "3"]]
    err = capsys.readouterr().err
    assert err.splitlines(keepends=True)[-1].startswith(line)
    assert ("Traceback" in err) is debug
    if not debug:
        assert err.count("\n") == 1


def test_an_error_of_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], prog: str) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("sb3_vgs_ppo.cli.train.run", run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_waits_for_nothing_heavy(argv: list[str]) -> None:
    code = f"""
import sys
from sb3_vgs_ppo.cli.main import main
try:
    main({argv!r})
except SystemExit as stop:
    assert stop.code == 0
print([name for name in ("torch", "stable_baselines3", "gymnasium", "matplotlib", "pandas") if name in sys.modules])
"""
    ascii_terminal = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ascii_terminal)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


@pytest.mark.parametrize("start", [["-m", "sb3_vgs_ppo", "train"], ["scripts/train.py"]])
def test_other_ways_to_start_it(start: list[str]) -> None:
    command = [sys.executable, *start]
    help_text = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert help_text.startswith("usage: sb3-vgs-ppo train")
    refused = subprocess.run([*command, "--n-env", "3"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr == "error: no option '--n-env'; did you mean '--n-envs'?\n"
