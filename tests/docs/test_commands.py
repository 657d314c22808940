"""Commands of the pages: their own parsers understand all, and the cheap ones work; trainings are in the slow suite."""

from __future__ import annotations

import argparse
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from helpers import import_zoo
from sb3_vgs_ppo.cli.compare import open_store
from sb3_vgs_ppo.cli.main import COMMANDS, main
from sb3_vgs_ppo.cli.train import read_options
from sb3_vgs_ppo.runs.algorithm import resolve
from sb3_vgs_ppo.runs.config import check_config
from sb3_vgs_ppo.runs.training import check_training_env

from .pages import PAGES, ROOT, commands_of, name_of, save_named_blocks

COMMAND_LINES = [(page, words) for page in PAGES for words in commands_of(page) if words]


class UnderstoodError(Exception):
    """Raised where a command would begin its work, with the options that it has understood."""


def understand(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """:return: options of an ``sb3-vgs-ppo`` command, by its own parser; None if it only shows its help"""
    command, *arguments = words
    module = import_module(COMMANDS[command].module)
    parse = module.parse_options

    def only_parse(*args: Any, **kwargs: Any) -> None:
        raise UnderstoodError(parse(*args, **kwargs))

    monkeypatch.setattr(module, "parse_options", only_parse)
    try:
        module.run(arguments, prog=f"sb3-vgs-ppo {command}")
    except UnderstoodError as found:
        return found.args[0]
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        monkeypatch.setattr(module, "parse_options", parse)
    return None


def check_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a command of this package as far as that costs no training."""
    options = understand(words, monkeypatch)
    if options is None:
        return
    if words[0] == "train":
        config = read_options(words[1:], "sb3-vgs-ppo train")
        check_config(config)
        resolve(config)
        check_training_env(config)
    if words[0] == "compare":
        open_store(options)


def check_make(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    dry_run = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    for line in dry_run.stdout.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        if program.endswith("bin/sb3-vgs-ppo"):
            check_command(arguments, monkeypatch)


def check_argparse(run: Callable[[], object], arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """:param run: parses ``sys.argv`` with argparse first"""
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser, *args: Any) -> None:
        raise UnderstoodError(parse(parser, *args))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(UnderstoodError):
        run()


def check_script(path: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = Path(path).stem
    if name in COMMANDS:
        check_command([name, *arguments], monkeypatch)
    elif "argparse" in (ROOT / path).read_text(encoding="utf-8"):
        check_argparse(lambda: runpy.run_path(str(ROOT / path), run_name="__main__"), arguments, monkeypatch)
    else:
        assert arguments == []


def check_zoo(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from sb3_vgs_ppo.cli import zoo

    check_argparse(zoo.train if program == "sb3-vgs-zoo-train" else zoo.enjoy, arguments, monkeypatch)


@pytest.mark.parametrize(("page", "words"), COMMAND_LINES, ids=name_of)
def test_commands_are_understood(
    page: Path, words: list[str], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_named_blocks(page, workplace)
    program, *arguments = words
    if program == "sb3-vgs-ppo":
        check_command(arguments, monkeypatch)
    elif program == "make":
        check_make(arguments, monkeypatch)
    elif program == "python" and arguments[0].startswith("scripts/"):
        check_script(arguments[0], arguments[1:], monkeypatch)
    elif program.startswith("sb3-vgs-zoo-"):
        import_zoo()
        check_zoo(program, arguments, monkeypatch)
    else:
        assert words[0] in ("pip", "ray") or words[:3] == ["python", "-m", "rl_zoo3.cli"], "another program"


def is_cheap(words: list[str]) -> bool:
    return words[0] == "sb3-vgs-ppo" and words[1] in ("inspect", "migrate") and "RUN" not in words


CHEAP_PAGES = [page for page in PAGES if any(is_cheap(words) for at, words in COMMAND_LINES if at == page)]


@pytest.mark.parametrize("page", CHEAP_PAGES, ids=name_of)
def test_cheap_commands_of_a_page_work(page: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each in turn, since one reads what another has written; an example may write a target of an earlier one anew."""
    for words in commands_of(page):
        if words and is_cheap(words):
            if words[1] == "migrate":
                (workplace / words[3]).unlink(missing_ok=True)
            assert main(words[1:]) == 0, (words, capsys.readouterr().err)


def train_commands() -> list[Any]:
    """:return: page and command, without those that would report to a server"""
    trainings = ((page, words) for page, words in COMMAND_LINES if words[:2] == ["sb3-vgs-ppo", "train"])
    found = [(page, words) for page, words in trainings if "--track" not in words]
    return [pytest.param(page, words, id=f"{name_of(page)}-{number}") for number, (page, words) in enumerate(found)]


@pytest.mark.slow
@pytest.mark.timeout(900)  # the final evaluation of an Atari agent takes minutes
@pytest.mark.parametrize(("page", "words"), train_commands())
def test_trainings_work(page: Path, words: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One rollout each."""
    save_named_blocks(page, workplace)
    shutil.move(workplace / "runs" / "first" / "config.json", workplace)
    shutil.rmtree(workplace / "runs")
    words = ["config.json" if word == "runs/first/config.json" else word for word in words]
    short = ["--total-timesteps", "1", "--eval-every", "0", "--checkpoint-every", "0", "--no-progress"]
    assert main([*words[1:], *short]) == 0, capsys.readouterr().err
