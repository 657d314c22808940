"""
README and docs: their snippets run, their commands are understood, their links lead somewhere, and the site builds.

Commands and snippets find a working folder as a reader of the pages would have it (:func:`workplace`). A block that
begins with ``# NAME.py`` or ``# NAME.yaml`` is saved under that name, for later blocks of its page.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import pytest
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_vgs_ppo._values import read_mapping
from sb3_vgs_ppo.cli.main import COMMANDS, main
from sb3_vgs_ppo.cli.train import read_options
from sb3_vgs_ppo.runs.algorithm import resolve
from sb3_vgs_ppo.runs.config import TrainConfig, check_config
from sb3_vgs_ppo.runs.config_file import config_from_mapping
from sb3_vgs_ppo.runs.environments import check_environment
from sb3_vgs_ppo.runs.study import check_study
from sb3_vgs_ppo.runs.training import train
from sb3_vgs_ppo.studies.search import make_search
from sb3_vgs_ppo.studies.study_file import make_study

ROOT = Path(__file__).parents[2]
LEGACY = ROOT / "tests" / "fixtures" / "legacy"
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts),
    *sorted(ROOT.glob("results/**/*.md")),
]
SHELL = ("", "sh")
SHORT: dict[str, Any] = {
    "total_timesteps": 64,
    "n_envs": 2,
    "eval_every": 32,
    "eval_episodes": 1,
    "algo_kwargs": {"n_steps": 16, "batch_size": 16, "n_epochs": 1},
}
LONGEST_TRAINING = 150
"""Environment steps of a snippet's training: a rollout of PPO, and past the first 100 of SAC, which are random."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text[: found.start()].count("\n") + 1)
        for found in re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def name_of(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(block.language in languages for block in blocks_of(page))]


def is_command(line: str) -> bool:
    return re.match(r"(\w+=\S+ )*(sb3-vgs-\S+|make|python|pip|ray) ", line) is not None


def commands_of(page: Path) -> list[list[str]]:
    """:return: command lines of a page as words, without comments and settings of the shell's environment"""
    lines = [
        line
        for block in blocks_of(page)
        if block.language in SHELL
        for line in block.text.replace("\\\n", " ").splitlines()
        if is_command(line) or block.language == "sh"
    ]
    split = [shlex.split(line, comments=True) for line in lines]
    return [[word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word) or words[0] == "make"] for words in split]


COMMAND_LINES = [(page, words) for page in PAGES for words in commands_of(page) if words]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:return: folder with a finished run and the files that pages speak of"""
    folder = tmp_path_factory.mktemp("template")
    run = train(TrainConfig(**SHORT, run_dir=str(folder / "runs" / "first"))).folder
    shutil.copy(run.final_model, folder / "agent.zip")
    for source, name in {
        "vgs_2_0_quantile.zip": "old.zip",
        "vgs_3_0_categorical.zip": "categorical.zip",
        "sb3_ppo.zip": "ppo.zip",
        "state_vgs_2_0.pt": "state.pt",
    }.items():
        shutil.copy(LEGACY / source, folder / name)
    (folder / "results").symlink_to(ROOT / "results")
    return folder


@pytest.fixture
def workplace(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """:return: a copy of the template, which is the working folder meanwhile; environments registered there go"""
    folder = tmp_path / "work"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    registered = set(gym.registry)
    yield folder
    for env_id in set(gym.registry) - registered:
        del gym.registry[env_id]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def save_named_blocks(page: Path, folder: Path) -> None:
    for block in blocks_of(page):
        name = re.match(r"# (\S+\.(?:py|yaml))\n", block.text)
        if name:
            (folder / name[1]).write_text(block.text, encoding="utf-8")


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
        check_environment(config.env_id, config.env_kwargs, config.n_envs)
    if words[0] == "compare":
        from sb3_vgs_ppo.cli.compare import open_store

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
        pytest.importorskip("rl_zoo3")
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
@pytest.mark.parametrize(("page", "words"), train_commands())
def test_trainings_work(page: Path, words: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One rollout each."""
    save_named_blocks(page, workplace)
    shutil.move(workplace / "runs" / "first" / "config.json", workplace)
    shutil.rmtree(workplace / "runs")
    words = ["config.json" if word == "runs/first/config.json" else word for word in words]
    short = ["--total-timesteps", "1", "--eval-every", "0", "--checkpoint-every", "0", "--no-progress"]
    assert main([*words[1:], *short]) == 0, capsys.readouterr().err


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


def anchors_of(page: Path) -> set[str]:
    """:return: names that code hosts and MyST give to the headings of a page"""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []


def test_every_page_is_in_a_table_of_contents() -> None:
    index = ROOT / "docs" / "index.md"
    listed = {name for block in blocks_of(index) if block.language == "{toctree}" for name in block.text.split("\n")}
    names = {str(page.relative_to(index.parent).with_suffix("")) for page in PAGES if page.is_relative_to(index.parent)}
    assert names - listed == {"index"}


def test_the_files_of_a_run_are_described(template: Path) -> None:
    page = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
    files = {path.name + "/" * path.is_dir() for path in (template / "runs" / "first").iterdir()}
    names = {re.sub(r"^events\.out\..*", "events.out.tfevents.…", name) for name in files}
    assert {name for name in names if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("file", ["config.json", "status.json"])
def test_the_fields_of_a_run_are_described(file: str, template: Path) -> None:
    page = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
    values = json.loads((template / "runs" / "first" / file).read_text(encoding="utf-8"))
    names = [*values, *(values.get("summary") or {})]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = pytest.importorskip("sphinx.cmd.build")
    assert build.build_main(["-W", "--keep-going", "-q", "-b", "html", str(ROOT / "docs"), str(tmp_path)]) == 0
    assert "Can I use it?" in (tmp_path / "algorithms" / "dppo.html").read_text(encoding="utf-8")
