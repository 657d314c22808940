from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_vgs_ppo._files import write_json
from sb3_vgs_ppo.errors import RunFolderError
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.folder import RunFolder, RunStatus, default_run_dir, new_run_folder, read_json

HOLD = """
import sys
from pathlib import Path
from sb3_vgs_ppo.runs.folder import RunStatus, new_run_folder
with new_run_folder(Path(sys.argv[1])) as folder:
    folder.config.write_text("{}")
    folder.write_status(RunStatus("running", 10, 100))
    print("ready", flush=True)
    sys.stdin.read()
"""


def content(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_new_folder_is_made_with_its_parents_and_kept(tmp_path: Path) -> None:
    with new_run_folder(tmp_path / "a" / "b") as folder:
        write_json(folder.config, {"schema": 1})
        assert folder.is_in_use()
    assert content(tmp_path) == ["a", "a/b", "a/b/.lock", "a/b/config.json"]
    assert not folder.is_in_use()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    with new_run_folder(tmp_path) as folder:
        folder.config.touch()
    assert content(tmp_path) == [".lock", "config.json"]


def test_a_folder_with_content_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(RunFolderError, match=rf"{tmp_path} is not empty; remedy: another --run-dir"),
        new_run_folder(tmp_path),
    ):
        pass
    assert content(tmp_path) == ["thesis.tex"]


def fail_with(path: Path, *names: str) -> None:
    """Start a run that makes files and folders (those that end with a slash), and fails."""
    with new_run_folder(path) as folder:
        for name in names:
            (folder.path / name).mkdir() if name.endswith("/") else (folder.path / name).touch()
        raise ZeroDivisionError


def test_a_failure_before_the_record_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "there" / "new" / "run", tmp_path / "empty"):
        with pytest.raises(ZeroDivisionError):
            fail_with(path, "monitor/", "monitor/0.monitor.csv", "progress.csv")
    assert content(tmp_path) == ["empty", "there"]


def test_a_failure_leaves_the_neighbours(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_with(tmp_path / "runs" / "mine", "../other/")
    assert content(tmp_path) == ["runs", "runs/other"]


def test_a_failure_after_the_record_keeps_the_run(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_with(tmp_path / "run", "config.json")
    assert content(tmp_path / "run") == [".lock", "config.json"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("file", "it is a file"), ("file/run", "Not a directory"), ("loop/run", "Too many levels|File exists")],
)
def test_a_folder_that_cannot_be_written(path: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with (
        pytest.raises(
            RunFolderError, match=rf"{tmp_path / path} cannot be written: ({reason}); remedy: another --run-dir"
        ),
        new_run_folder(tmp_path / path),
    ):
        pass
    assert content(tmp_path) == ["file", "loop"]


def test_parents_made_before_a_failure_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(RunFolderError, match="no permission"), new_run_folder(tmp_path / "a" / "b"):
        pass
    assert content(tmp_path) == []


def test_a_live_process_keeps_others_out_and_a_killed_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(RunFolderError, match=rf"{path} is in use by another live process"), new_run_folder(path):
            pass
        assert RunFolder(path).read_status().state == "running"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    status = RunFolder(path).read_status()
    assert (status.state, status.num_timesteps) == ("interrupted", 10)
    assert status.cause == "the process ended without notice"
    with pytest.raises(RunFolderError, match="is not empty"), new_run_folder(path):
        pass


def test_status_is_read_as_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status(RunStatus("diverged", 5, 10, cause="NaN"))
    status = folder.read_status()
    assert (status.state, status.num_timesteps, status.total_timesteps, status.cause) == ("diverged", 5, 10, "NaN")
    assert status.updated.endswith("+00:00")


def test_files_that_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=rf"{tmp_path} is not a run folder: it has no status.json"):
        RunFolder(tmp_path).read_status()
    (tmp_path / "status.json").write_text('{"state": ')
    with pytest.raises(RunFolderError, match=r"status.json cannot be read"):
        RunFolder(tmp_path).read_status()
    (tmp_path / "status.json").write_text("[]")
    with pytest.raises(RunFolderError, match=r"is not a JSON object"):
        read_json(tmp_path / "status.json")


def test_default_folders_say_what_runs_and_never_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(
        env_id="my_envs:Pong/Deep-v0", seed=7, optimizer="upgd", value_head="scalar", vgs_version="off"
    )
    first = default_run_dir(config)
    assert first.parent == Path("runs/my_envs-Pong-Deep-v0")
    assert first.name.startswith("scalar_upgd_vgs-off_seed7_20")
    names = set()
    for _ in range(3):
        path = default_run_dir(config)
        path.mkdir(parents=True)
        names.add(path)
    assert len(names) == 3
