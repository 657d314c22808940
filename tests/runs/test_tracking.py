"""Trackers are run for real: MLflow with its SQLite store, Weights & Biases offline."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from comparison import tables
from sb3_vgs_ppo.errors import TrackingWarning, TrainingDiverged, UserInputError
from sb3_vgs_ppo.runs import tracking, training
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.config_file import config_from_mapping
from sb3_vgs_ppo.runs.folder import RunFolder
from sb3_vgs_ppo.runs.progress import Display
from sb3_vgs_ppo.runs.resuming import resume
from sb3_vgs_ppo.runs.tracking import StoreTracker, finite_numbers, tracker_names
from sb3_vgs_ppo.runs.training import train

Configure = Callable[..., TrainConfig]
Curves = dict[str, list[tuple[int, float]]]
"""By name, steps and values."""
X_AXIS = "time/total_timesteps"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "FINAL_EVALUATION_EPISODES", 2)


class Killed(BaseException):
    """Stands for the end of a process where a signal would end the test."""


class KilledAt(Display):
    """Ends the training in the middle of a rollout."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, num_timesteps: int) -> None:
        if num_timesteps >= self.at:
            raise Killed


def curves_of(folder: RunFolder) -> Curves:
    """:return: those of ``progress.csv``"""
    curves: Curves = {}
    with folder.progress.open() as file:
        for row in map(finite_numbers, csv.DictReader(file)):
            for name, value in row.items():
                curves.setdefault(name, []).append((int(row[X_AXIS]), value))
    return curves


@pytest.mark.parametrize(
    ("track", "names"),
    [
        ("none", ()),
        ("tensorboard", ("tensorboard",)),
        ("mlflow, wandb,mlflow", ("mlflow", "wandb")),
    ],
)
def test_names_are_joined_by_commas(track: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: ModuleSpec(name, None, origin=f"{name}.py"))
    assert tracker_names(track) == names


@pytest.mark.parametrize("track", ["wand", "", "none,wandb", "tensorboard wandb"])
def test_unknown_names_are_refused(track: str, short_config: Configure, tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"no tracker .*; remedy: tensorboard, wandb, mlflow joined by commas, or"):
        train(short_config(track=track))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spec", [None, ModuleSpec("wandb", None)], ids=["nothing", "W&B's own folder of local files"])
def test_a_missing_package_is_named(spec: ModuleSpec | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: spec)
    with pytest.raises(UserInputError, match=r"package wandb is not installed; remedy: pip install 'sb3-vgs-ppo\[tra"):
        tracker_names("wandb")


def test_gaps_of_a_curve_are_left_out() -> None:
    values = {"a": 1, "b": float("nan"), "c": "0.1", "d": "", "e": "-inf", "f": "text", "g": None, "h": [1.0]}
    assert finite_numbers(values) == {"a": 1.0, "c": 0.1}


class Recorder(StoreTracker):
    """Remembers what it was told; refuses rows, and the end, if it is to."""

    name = "wandb"
    title = "Recorder"

    def __init__(self, folder: RunFolder, fails: bool = False) -> None:
        super().__init__(folder)
        self.fails = fails
        self.steps: list[int] = []
        self.ends: list[tuple[str, dict[str, float]]] = []

    @property
    def shown_by(self) -> Sequence[str]:
        return ("https://example.org/run",)

    @property
    def identity(self) -> dict[str, Any]:
        return {"id": "abc"}

    def send(self, values: Mapping[str, float], step: int) -> None:
        self.steps.append(step)
        self._fail()

    def end(self, outcome: str, summary: Mapping[str, float]) -> None:
        self.ends.append((outcome, dict(summary)))
        self._fail()

    def _fail(self) -> None:
        if self.fails:
            raise ConnectionError("no\nroute")


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """:return: what is started in place of any tracker"""
    started: list[Recorder] = []

    def start(name: str, config: TrainConfig, folder: RunFolder, identity: Mapping[str, Any] | None) -> Recorder:
        started.append(Recorder(folder))
        return started[-1]

    monkeypatch.setattr(tracking, "_start", start)
    return started


class Killer(Display):
    """Sends signals to its own process in the first rollout."""

    def __init__(self, *signals: signal.Signals) -> None:
        self.signals = list(signals)

    def step(self, num_timesteps: int) -> None:
        while self.signals:
            signal.raise_signal(self.signals.pop(0))


def test_a_finished_run_is_finished_with_its_summary(short_config: Configure, recorders: list[Recorder]) -> None:
    result = train(short_config(total_timesteps=256))
    assert recorders[0].steps == [128, 256]
    assert recorders[0].ends == [("finished", result.folder.read_status().summary)]
    assert result.shown_by == {"Recorder": ("https://example.org/run",)}
    assert json.loads(result.folder.tracking.read_text()) == {"wandb": {"id": "abc"}}


def test_signals_kill(short_config: Configure, recorders: list[Recorder], tmp_path: Path) -> None:
    train(short_config(), display=Killer(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train(short_config(run_dir=str(tmp_path / "at once")), display=Killer(signal.SIGINT, signal.SIGINT))
    assert [recorder.ends for recorder in recorders] == [[("killed", {})], [("killed", {})]]


@pytest.mark.usefixtures("toy_envs")
def test_errors_fail(short_config: Configure, recorders: list[Recorder], tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged):
        train(short_config(env_id="toy_envs:ToyNan-v0", algo_kwargs={"n_steps": 64, "batch_size": 8}))
    with pytest.raises(RuntimeError, match="the robot fell over"):
        train(short_config(env_id="toy_envs:ToyCrash-v0", run_dir=str(tmp_path / "crash")))
    assert [recorder.ends for recorder in recorders] == [[("failed", {})], [("failed", {})]]


def test_a_tracker_that_fails_does_not_end_the_training(
    short_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_start", lambda name, config, folder, identity: Recorder(folder, fails=True))
    with pytest.warns(TrackingWarning) as caught:
        result = train(short_config(total_timesteps=384))
    assert result.folder.read_status().state == "finished"
    messages = [str(each.message) for each in caught if each.category is TrackingWarning]
    assert [message[:60] for message in messages] == [
        "Recorder: not every value of step 128 and after may be there",
        "Recorder: files, or how the run ended, may be missing (no ro",
    ]


def test_studies_do_not_track_their_runs() -> None:
    assert config_from_mapping({}, "a cell").track == "tensorboard"


def test_without_trackers_there_are_only_the_files(short_config: Configure) -> None:
    result = train(short_config(total_timesteps=128, track="none"))
    assert result.shown_by == {}
    assert not list(result.folder.path.glob("events.*"))
    assert not result.folder.tracking.exists()


def kill_and_resume(config: TrainConfig, resuming: Callable[[], None] = lambda: None) -> RunFolder:
    """
    Rollouts of 128 steps, a checkpoint after every second: a run killed at 460 is continued from 256.

    :param resuming: called between the two
    """
    config = replace(config, checkpoint_every=256, total_timesteps=512)
    with pytest.raises(Killed):
        train(config, display=KilledAt(460))
    resuming()
    result = resume(Path(str(config.run_dir)))
    assert result is not None
    untracked = train(replace(config, run_dir=f"{config.run_dir}-untracked", track="none"))
    assert tables(result.folder.path) == tables(untracked.folder.path)  # trackers draw from no generator of ours
    return result.folder


class TestMlflow:
    @pytest.fixture
    def _store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The default store, in an empty working directory."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        pytest.importorskip("mlflow")

    @pytest.mark.usefixtures("_store")
    def test_a_resumed_run_continues_the_same_curves(
        self, short_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mlflow import MlflowClient, MlflowException

        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        log_batch = MlflowClient.log_batch
        refusals = [MlflowException("database is locked")]

        def locked_once(self: MlflowClient, run_id: str, metrics: Sequence[Any] = (), **kwargs: Any) -> None:
            if metrics and refusals:
                raise refusals.pop()
            log_batch(self, run_id, metrics=metrics, **kwargs)

        def from_elsewhere() -> None:
            assert client.get_run(run_id()).info.status == "FAILED"
            (tmp_path / "elsewhere").mkdir()
            monkeypatch.chdir(tmp_path / "elsewhere")

        def run_id() -> str:
            return str(json.loads((tmp_path / "run" / "tracking.json").read_text())["mlflow"]["run_id"])

        monkeypatch.setattr(MlflowClient, "log_batch", locked_once)
        with pytest.warns(TrackingWarning, match=r"MLflow: not every value of step 128 .* \(database is locked"):
            folder = kill_and_resume(short_config(track="mlflow"), from_elsewhere)

        run = client.get_run(run_id())
        assert client.get_experiment(run.info.experiment_id).name == "sb3-vgs-ppo"
        assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
        assert run.data.params["algo_kwargs.n_steps"] == "64"
        assert run.data.params["seed"] == "0"
        assert run.data.metrics["final_mean_reward"] == folder.read_status().summary["final_mean_reward"]
        files = {artifact.path for artifact in client.list_artifacts(run_id())}
        assert files == {"config.json", "curve.png", "calibration.png", "final_model.zip"}
        model = client.download_artifacts(run_id(), "final_model.zip")
        assert Path(model).read_bytes() == folder.final_model.read_bytes()

        curves = curves_of(folder)
        for name, curve in curves.items():
            history = client.get_metric_history(run_id(), name)
            in_order = sorted(history, key=lambda metric: (metric.timestamp, metric.step))
            assert sorted({metric.step: metric.value for metric in in_order}.items()) == curve, name
        twice = [metric.step for metric in client.get_metric_history(run_id(), "train/loss")]
        assert sorted(twice) == [128, 256, 384, 384, 512]

        (tmp_path / "mlflow.db").unlink()
        with pytest.raises(UserInputError, match=r"--track mlflow: .*; remedy: MLFLOW_TRACKING_URI of the store"):
            resume(folder.path, 640)


class TestWandb:
    @pytest.fixture(autouse=True)
    def _offline(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("DIR", "CACHE_DIR", "DATA_DIR", "CONFIG_DIR"):
            monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb"))
        (tmp_path / "wandb").mkdir()
        for name, value in {"MODE": "offline", "SILENT": "true", "ERROR_REPORTING": "false"}.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        pytest.importorskip("wandb")

    def test_a_resumed_run_continues_the_same_curves(self, short_config: Configure, tmp_path: Path) -> None:
        folder = kill_and_resume(short_config(track="wandb", track_project="mine"))
        sessions = [list(records_of(path)) for path in sorted(tmp_path.glob("wandb/wandb/offline-run-*/*.wandb"))]
        assert len(sessions) == 2
        identity = json.loads(folder.tracking.read_text())["wandb"]
        for session, exit_code in zip(sessions, (1, 0), strict=True):
            (run,) = (record.run for record in session if record.HasField("run"))
            assert (run.run_id, run.project, run.display_name) == (identity["id"], "mine", "run")
            assert [record.exit.exit_code for record in session if record.HasField("exit")] == [exit_code]
        assert curves_in(sessions[0])["train/loss"] == curves_of(folder)["train/loss"][:3]
        assert curves_in(sessions[1]) == curves_of(folder)
        assert [record.metric.step_metric for record in sessions[1] if record.metric.glob_name == "*"] == [X_AXIS]
        files = {file.path for record in sessions[1] for file in record.files.files}
        assert {"config.json", "curve.png", "calibration.png"} <= files
        curve = folder.curve.read_bytes()
        assert [path.read_bytes() for path in tmp_path.glob("wandb/wandb/offline-run-*/files/curve.png")] == [curve]
        models = [record.artifact for record in sessions[1] if record.HasField("artifact")]
        assert [(model.type, model.name) for model in models] == [("model", f"model-{identity['id']}")]
        options = {item.key: json.loads(item.value_json) for record in sessions[1] for item in record.config.update}
        assert options["algo_kwargs"] == {"n_steps": 64, "batch_size": 32, "n_epochs": 2}

    @pytest.mark.parametrize(
        ("next_step", "expected"),
        [
            (385, [(385, 384), (512, 512)]),  # the server knows more than the checkpoint
            (256, [(256, 256), (384, 384), (512, 512)]),  # what was not sent before the kill is made up for
        ],
    )
    def test_steps_of_a_resumed_run_on_the_server_grow(
        self, next_step: int, expected: list[tuple[int, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sb3_vgs_ppo.runs import tracking_wandb

        run = MagicMock(step=next_step)
        init = MagicMock(return_value=run)
        monkeypatch.setattr(tracking_wandb.wandb, "init", init)
        (tmp_path / "progress.csv").write_text(f"{X_AXIS},train/loss\n128,0.5\n256,nan\n")
        identity = {"id": "abc", "project": "mine", "entity": "us"}
        tracker = tracking_wandb.WandbTracker(TrainConfig(track_project="other"), RunFolder(tmp_path), identity)
        for step in (384, 512):
            tracker.write({X_AXIS: step, "train/loss": float("inf")}, {X_AXIS: ("tensorboard",)}, step)
        assert init.call_args.kwargs.items() >= {**identity, "resume": "allow"}.items()
        assert [(call.kwargs["step"], call.args[0][X_AXIS]) for call in run.log.call_args_list] == expected
        assert all("train/loss" not in call.args[0] and call.kwargs["commit"] for call in run.log.call_args_list)

    def test_a_refusal_is_an_error_of_one_line(
        self, short_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import wandb

        def refuse(**kwargs: Any) -> None:
            raise wandb.errors.UsageError("No API key\nconfigured.")

        monkeypatch.setattr(wandb, "init", refuse)
        with pytest.raises(UserInputError, match=r"^--track wandb: No API key configured\.; remedy: wandb login, or W"):
            train(short_config(track="wandb"))
        assert not (tmp_path / "run").exists()


def records_of(path: Path) -> Iterator[Any]:
    """:return: the records of W&B's local file: a header of 7 bytes, then LevelDB's log format in blocks of 32 KiB"""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, content = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left_in_block = 32768 - position % 32768
        if left_in_block < 7:
            position += left_in_block
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        content += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(content)
            content = b""


def curves_in(session: Sequence[Any]) -> Curves:
    curves: Curves = {}
    for record in session:
        if record.HasField("history"):
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for name in row.keys() - {"_step", "_runtime", "_timestamp"}:
                curves.setdefault(name, []).append((int(row[X_AXIS]), row[name]))
    return curves
