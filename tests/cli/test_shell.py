"""Programs are named so that the line can be typed as it stands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sb3_vgs_ppo.cli.shell import program


@pytest.fixture
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment in .venv of the current folder, which is not activated."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "tool"):
        (folder / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("_environment")
def test_a_script_that_the_shell_does_not_find_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program("tool") == ".venv/bin/tool"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert program("tool") == str(tmp_path / ".venv" / "bin" / "tool")


@pytest.mark.usefixtures("_environment")
def test_a_script_that_the_shell_finds_is_named_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / ".venv" / "bin"))
    assert program("tool") == "tool"


@pytest.mark.usefixtures("_environment")
def test_an_unknown_script_keeps_its_name() -> None:
    assert program("nothing") == "nothing"
