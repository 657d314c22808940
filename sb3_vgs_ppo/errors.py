"""Every error and warning that the package raises on purpose.

Each one also subclasses the builtin that a caller who never heard of this package would catch.
"""

from __future__ import annotations

from collections.abc import Sequence


class VgsPpoError(Exception):
    """Base of all errors of this package."""


class UserInputError(VgsPpoError, ValueError):
    """A value that the user gave cannot be used; the message names the value and the remedy (exit code 2)."""


class CheckpointError(VgsPpoError, ValueError):
    """A checkpoint, or a state inside it, cannot be read; the message names the file or field and the reason."""


class RunFolderError(UserInputError):
    """A run folder cannot be used: not empty, not writable, or held by another live process."""


class StudyError(UserInputError):
    """A study cannot be run or read: its definition, its folder or one of its cells."""


class TrainingDiverged(VgsPpoError, RuntimeError):  # noqa: N818 - the name says what happened, and the spec fixes it
    """Training was stopped because too many updates in a row were not finite.

    :param tensors: names of the parameters whose gradient was not finite in the last skipped update
    :param n_updates: number of skipped updates in a row
    :param num_timesteps: environment steps collected when training stopped
    :param rollout: names of the rollout's arrays ("observations", "rewards") that hold NaN or Inf
    """

    def __init__(self, tensors: Sequence[str], n_updates: int, num_timesteps: int, rollout: Sequence[str] = ()) -> None:
        self.tensors: tuple[str, ...] = tuple(tensors)
        self.n_updates = n_updates
        self.num_timesteps = num_timesteps
        self.rollout: tuple[str, ...] = tuple(rollout)
        shown = ", ".join(self.tensors[:4]) or "none (the loss itself)"
        more = f" and {len(self.tensors) - 4} more" if len(self.tensors) > 4 else ""
        if self.rollout:
            remedy = f"the environment returned non-finite {' and '.join(self.rollout)}; find where with VecCheckNan"
        else:
            remedy = "lower learning_rate, or normalize observations and rewards (VecNormalize)"
        super().__init__(
            f"{n_updates} updates in a row had a non-finite loss or gradient norm (at step {num_timesteps}); "
            f"non-finite gradients in: {shown}{more}. Remedy: {remedy}."
        )

    def __reduce__(self) -> tuple[type[TrainingDiverged], tuple[tuple[str, ...], int, int, tuple[str, ...]]]:
        # The default would rebuild from the message alone and fail when the error crosses a process boundary.
        return type(self), (self.tensors, self.n_updates, self.num_timesteps, self.rollout)


class CompileFallbackWarning(UserWarning):
    """What was to be compiled runs uncompiled; the message says why."""


class TrackingWarning(UserWarning):
    """Part of a run may be missing in a tracker; the run folder has it."""


class VGSMigrationWarning(UserWarning):
    """A VGS state of another version was loaded: what it measured does not carry over."""
