"""Experiment trackers: where the curves, options and files of a run go besides its folder (``docs/tracking.md``).

A tracker is an output format of SB3's logger, so it is given what ``progress.csv`` is given. The way that Weights &
Biases offers for SB3, ``WandbCallback`` with ``sync_tensorboard=True``, patches TensorBoard for the whole process,
reads event files that a resumed run cuts back, and misses what SB3 keeps out of TensorBoard.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from stable_baselines3.common.logger import KVWriter, TensorBoardOutputFormat, filter_excluded_keys

from sb3_vgs_ppo._files import write_json
from sb3_vgs_ppo.errors import TrackingWarning, UserInputError
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.folder import RunFolder, read_json

TRACKERS = ("tensorboard", "wandb", "mlflow")
NO_TRACKER = "none"
DEFAULT_PROJECT = "sb3-vgs-ppo"

Outcome: TypeAlias = Literal["finished", "failed", "killed"]
"""How a run ended: trained to its end, by an error, or by a signal."""


class Tracker(KVWriter):
    """
    An output format of SB3's logger that knows how its user looks at it.

    :cvar title: its name, as its users write it
    """

    title: ClassVar[str]

    @property
    @abstractmethod
    def shown_by(self) -> Sequence[str]:
        """Words of the command that shows the run or sends it off; an address alone if it lies on a server."""

    def finish(self, outcome: Outcome, summary: Mapping[str, float]) -> None:
        """
        Called once, after the run's last file was written.

        :param outcome: how the run ended
        :param summary: figures of a finished run, by name
        """

    def close(self) -> None:
        """SB3 closes its formats before the run's last files are there; :meth:`finish` is what ends a tracker."""


class TensorBoardTracker(TensorBoardOutputFormat, Tracker):
    """SB3's format, with event files in the run folder."""

    title = "TensorBoard"

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(str(folder.path))
        self.folder = folder

    @property
    def shown_by(self) -> Sequence[str]:
        return "tensorboard", "--logdir", str(self.folder.path)


class StoreTracker(Tracker):
    """
    Base of trackers with a store outside the run folder. Once the run has started, what goes wrong there is a warning:
    a training is worth more than its curve in a second place.

    :cvar name: its name on the command line
    :param folder: folder of the run
    """

    name: ClassVar[str]

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._has_warned = False

    @property
    def files(self) -> list[Path]:
        """The run's record and figures, as far as they are there."""
        files = (self.folder.config, self.folder.curve, self.folder.calibration_figure)
        return [path for path in files if path.exists()]

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What finds the run in the store again, plain values."""

    @abstractmethod
    def send(self, values: Mapping[str, float], step: int) -> None:
        """
        :param values: finite numbers by name
        :param step: environment steps so far
        """

    @abstractmethod
    def end(self, outcome: Outcome, summary: Mapping[str, float]) -> None:
        """Send the files and say how the run ended; parameters as in :meth:`finish`."""

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """
        Send what a curve can show.

        :param key_values: logged values by name
        :param key_excluded: formats that do not want a value, by its name
        :param step: environment steps so far
        """
        values = finite_numbers(filter_excluded_keys(key_values, key_excluded, self.name))
        try:
            self.send(values, step)
        except Exception as error:
            if not self._has_warned:
                self._has_warned = True
                self._warn(f"not every value of step {step} and after may be there", error)

    def finish(self, outcome: Outcome, summary: Mapping[str, float]) -> None:
        try:
            self.end(outcome, summary)
        except Exception as error:
            self._warn("files, or how the run ended, may be missing", error)

    def _warn(self, what: str, error: Exception) -> None:
        message = f"{self.title}: {what} ({one_line(error)}); the run folder {self.folder.path} has everything"
        warnings.warn(message, TrackingWarning, stacklevel=3)


def tracker_names(track: str) -> tuple[str, ...]:
    """
    :param track: names joined by commas, or ``none``
    :raises UserInputError: an unknown name, or a package that is not installed
    """
    names = tuple(dict.fromkeys(name.strip() for name in track.split(",")))
    if names == (NO_TRACKER,):
        return ()
    for name in names:
        if name not in TRACKERS:
            known = f"{', '.join(TRACKERS)} joined by commas, or {NO_TRACKER}"
            raise UserInputError(f"--track {track!r}: no tracker {name!r}; remedy: {known}")
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name in the working directory is no package
            raise UserInputError(
                f"--track {track!r}: package {name} is not installed; remedy: pip install 'sb3-vgs-ppo[track]'"
            )
    return names


@contextmanager
def tracking(config: TrainConfig, folder: RunFolder) -> Iterator[list[Tracker]]:
    """
    The trackers of a run while the block runs it. A run that was tracked before is continued in the same place.

    :param config: resolved options
    :param folder: folder that this process holds; it remembers where the run is tracked
    :return: formats for the run's logger
    :raises UserInputError: a tracker cannot be used
    """
    trackers: list[Tracker] = []
    outcome: Outcome = "failed"
    summary: Mapping[str, float] = {}
    try:
        identities = read_json(folder.tracking) if folder.tracking.exists() else {}
        for name in tracker_names(config.track):
            trackers.append(_start(name, config, folder, identities.get(name)))
        stores = [tracker for tracker in trackers if isinstance(tracker, StoreTracker)]
        if stores:
            write_json(folder.tracking, {tracker.name: tracker.identity for tracker in stores})
        yield trackers
        status = folder.read_status()
        outcome = "finished" if status.state == "finished" else "killed"
        summary = status.summary or {}
    except KeyboardInterrupt:
        outcome = "killed"
        raise
    finally:
        for tracker in trackers:
            tracker.finish(outcome, summary)


def _start(name: str, config: TrainConfig, folder: RunFolder, identity: Mapping[str, Any] | None) -> Tracker:
    # The packages behind them take seconds to import
    if name == "wandb":
        from sb3_vgs_ppo.runs.tracking_wandb import WandbTracker

        return WandbTracker(config, folder, identity)
    if name == "mlflow":
        from sb3_vgs_ppo.runs.tracking_mlflow import MlflowTracker

        return MlflowTracker(config, folder, identity)
    return TensorBoardTracker(folder)


def finite_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """:return: the values that are finite numbers, or their text in a table; the others are gaps of a curve"""
    numbers = {}
    for name, value in values.items():
        with suppress(TypeError, ValueError):
            if math.isfinite(number := float(value)):
                numbers[name] = number
    return numbers


def one_line(error: Exception) -> str:
    """:return: an error's message, without the line breaks that packages put into theirs"""
    return " ".join(str(error).split())
