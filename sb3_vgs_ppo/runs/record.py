"""``config.json``: what a run was asked to do, and with what software."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sb3_vgs_ppo
from sb3_vgs_ppo._files import write_json
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.folder import RunFolder, read_json

RECORD_SCHEMA = 1


def write_record(folder: RunFolder, config: TrainConfig, command: Sequence[str], parent: str | None = None) -> None:
    """
    :param config: resolved options, so that ``--config config.json`` repeats the run even where defaults have changed
    :param command: command line that started the run
    :param parent: run folder or checkpoint whose training this run continues
    """
    record = {
        "schema": RECORD_SCHEMA,
        "options": config.to_mapping(),
        "preset": config.preset,
        "command": list(command),
        "versions": _versions(),
        "git": _git_commit(Path(sb3_vgs_ppo.__file__).parent),
        "parent": parent,
    }
    write_json(folder.config, record)


def add_resumption(folder: RunFolder, config: TrainConfig, command: Sequence[str], step: int) -> None:
    """
    Add to the record of a run that it is continued, and put in the options with which it is.

    :param config: resolved options
    :param command: command line that continues the run
    :param step: environment steps of the checkpoint that it is continued from
    """
    record = read_json(folder.config)
    resumption = {"command": list(command), "from_step": step, "versions": _versions()}
    resumptions = [*record.get("resumptions", []), resumption]
    write_json(folder.config, {**record, "options": config.to_mapping(), "resumptions": resumptions})


def _versions() -> dict[str, str]:
    packages = ("torch", "stable-baselines3", "gymnasium", "numpy")
    return {
        "sb3-vgs-ppo": sb3_vgs_ppo.__version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _git_commit(package: Path) -> dict[str, Any] | None:
    """:return: commit of the package's source and whether it was changed since; None if it is not under git"""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # site-packages may lie inside the user's own repository
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None
