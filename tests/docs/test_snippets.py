"""Snippets run, sessions print what stands there, messages are worded as in the code, and YAML is understood."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_vgs_ppo._values import read_mapping
from sb3_vgs_ppo.cli.main import main
from sb3_vgs_ppo.runs.config import check_config
from sb3_vgs_ppo.runs.config_file import config_from_mapping
from sb3_vgs_ppo.runs.study import check_study
from sb3_vgs_ppo.studies.search import make_search
from sb3_vgs_ppo.studies.study_file import make_study

from .pages import PAGES, ROOT, blocks_of, name_of, pages_with

LONGEST_TRAINING = 110
"""Environment steps of a snippet's training: a rollout of PPO, and past the first 100 of SAC, which are random."""


@pytest.mark.filterwarnings("ignore::sb3_vgs_ppo.errors.VGSMigrationWarning")
@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_snippets_run(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a page one after the other, in one namespace."""
    set_up = BaseAlgorithm._setup_learn

    def set_up_briefly(model: BaseAlgorithm, total_timesteps: int, *args: Any, **kwargs: Any) -> Any:
        if hasattr(model, "n_epochs"):
            model.n_epochs = 1
        return set_up(model, min(total_timesteps, LONGEST_TRAINING), *args, **kwargs)

    monkeypatch.setattr(BaseAlgorithm, "_setup_learn", set_up_briefly)
    names: dict[str, Any] = {"__name__": "snippet"}
    for block in blocks_of(page):
        if block.language == "python":
            exec(compile(block.text, f"{page}, block at line {block.line}", "exec", dont_inherit=True), names)


def sessions() -> list[Any]:
    return [
        pytest.param(shlex.split(command)[1:], expected, id=command)
        for page in PAGES
        for block in blocks_of(page)
        if block.language == "console"
        for command, expected in re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", block.text, re.MULTILINE)
    ]


@pytest.mark.parametrize(("arguments", "expected"), sessions())
def test_sessions_print_what_stands_there(
    arguments: list[str], expected: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code = main(arguments)
    printed = capsys.readouterr()
    assert printed.out + printed.err == expected
    assert exit_code == (2 if expected.startswith("error: ") else 0)


def texts_of_the_package() -> set[str]:
    """:return: the constant parts of all texts in the source that are long enough to be somebody's wording"""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "sb3_vgs_ppo").rglob("*.py"))
    constants = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {node.value for node in constants if isinstance(node.value, str) and len(node.value) >= 12}


def test_messages_that_cannot_be_provoked_here_are_worded_as_in_the_code() -> None:
    """Those in text blocks: the better part of each, the rest being values."""
    known = texts_of_the_package()
    blocks = [block for page in PAGES for block in blocks_of(page) if block.language == "text"]
    assert len(blocks) >= 6
    for block in blocks:
        message = block.text.strip().removeprefix("error: ")
        rest = message
        for text in sorted(known, key=len, reverse=True):
            rest = rest.replace(text, "")
        assert len(rest) < 0.6 * len(message), rest


@pytest.mark.parametrize("page", pages_with("yaml"), ids=name_of)
def test_yaml_is_a_study_a_search_or_options(page: Path, tmp_path: Path) -> None:
    file = tmp_path / "block.yaml"
    for block in blocks_of(page):
        if block.language == "yaml":
            file.write_text(block.text, encoding="utf-8")
            values = read_mapping(file, str(page), example="")
            if "variants" in values:
                check_study(make_study(values))
            elif "families" in values:
                make_search(values)
            elif "env_id" in values:
                check_config(config_from_mapping(values, str(page)))
            else:
                assert page.name == "zoo.md", "neither a study, nor a search, nor options of train"
