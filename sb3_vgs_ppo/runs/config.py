"""Options of a training run.

A field's docstring is the option's help. Nothing heavy is imported here: ``train --help`` shows these fields.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sb3_vgs_ppo._types import ValueHeadName, ValueTarget
from sb3_vgs_ppo.errors import UserInputError

OptimizerName: TypeAlias = Literal["adam", "adamw", "upgd", "adaptive-upgd"]
VecEnvName: TypeAlias = Literal["dummy", "subproc"]

VGS_OFF = "off"


@dataclass(frozen=True)
class TrainConfig:
    """Options of one training run."""

    preset: str | None = None
    """Name of the preset (:mod:`sb3_vgs_ppo.presets`) that was below the given options when these were read."""
    env_id: str = "CartPole-v1"
    """Registered gymnasium id, or module:Env-v0 for one that a module registers when it is imported."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment, as '{"gravity": -5}'."""
    total_timesteps: int = 60_000
    """Environment steps, summed over all environments; rounded up to whole rollouts."""
    n_envs: int = 8
    """Environments stepped side by side."""
    vec_env: VecEnvName = "dummy"
    """Where they live: all in one process (dummy), or each in its own (subproc), for environments with slow steps."""
    frame_stack: int = 1
    """Newest observations that the agent sees as one; 4 is usual for Atari games."""
    seed: int = 0
    """Seeds networks, exploration, environments and evaluations."""
    vgs_version: str = "3.0"
    """VGS version: off, 1.0, 2.0, 3.0, 3.1 or 4.0."""
    optimizer: OptimizerName = "adaptive-upgd"
    """Optimizer of policy and critic; its settings go to algo_kwargs, policy_kwargs, optimizer_kwargs."""
    value_head: ValueHeadName = "quantile"
    """What the critic predicts: the mean (scalar), or the distribution of returns by quantiles or by categories."""
    risk_measure: str = "mean"
    """What the actor maximises: mean, or cvar:0.25 for the mean of the worst quarter of the returns (any share)."""
    value_target: ValueTarget = "sample"
    """What a distributional critic learns from: lambda-returns (sample), or lambda-mixtures of n-step distributions."""
    compile: bool = False
    """Let torch.compile fuse the update on a CPU: a slow first update, then faster ones; needs a C++ compiler."""
    algo_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of DistributionalPPO, as '{"gamma": 0.9}'; n_steps is about 2048 / n_envs if not given."""
    normalize: bool = False
    """Normalize observations and rewards by running statistics (VecNormalize)."""
    checkpoint_every: int = 10_000
    """Save checkpoints/<step>.zip after the rollout that reaches a multiple of this many steps; 0: only at the end."""
    keep_checkpoints: int = 3
    """Number of newest checkpoints that are kept."""
    eval_every: int = 10_000
    """Evaluate after the rollout that reaches a multiple of this many steps; 0: only at the end."""
    eval_episodes: int = 10
    """Episodes of an evaluation."""
    record_video: bool = False
    """Record an episode of the best agent after training: video.mp4 where there is OpenCV, else video.gif."""
    on_change: str = "none"
    """What to do when returns drop below their prediction: none, report, restart-head, shrink-head, restart-network,
    reset-optimizer, raise-learning-rate, raise-noise or raise-entropy; several of them joined by +."""
    change_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the test for a change and of the responses, as '{"alpha": 0.01}'."""
    plasticity_metrics: bool = True
    """Log plasticity/...: dormant units, effective rank, size of weights, certainty of the policy."""
    track: str = "tensorboard"
    """Where the curves go besides the run folder: tensorboard, wandb and mlflow joined by commas, or none."""
    track_project: str | None = None
    """W&B project and MLflow experiment; WANDB_PROJECT, MLFLOW_EXPERIMENT_NAME or sb3-vgs-ppo if not given."""
    run_dir: str | None = None
    """Folder of the run, new or empty; runs/<environment>/<settings and time> if not given."""
    device: str = "auto"
    """cpu, cuda, cuda:1, … or auto: a GPU where there is one."""
    progress: bool = True
    """Show a progress bar on a terminal. Elsewhere, and without it, a few plain lines are printed."""
    torch_threads: int = 1
    """CPU threads of torch; small networks are fastest with one."""
    verbose: Literal[0, 1] = 0
    """1: print SB3's table after every rollout where there is no progress bar."""

    def to_mapping(self) -> dict[str, Any]:
        """
        :return: all options but ``run_dir``: a folder may be moved, and its options used for another run; and but
            ``preset``, whose options are among them: it may be another one when they are read
        """
        options = dataclasses.asdict(self)
        del options["run_dir"], options["preset"]
        return options


def check_config(config: TrainConfig) -> None:
    """
    Check what needs neither the environment nor the algorithm.

    :raises UserInputError: a value out of range, with the option's name
    """
    smallest = {
        "total_timesteps": 1,
        "n_envs": 1,
        "frame_stack": 1,
        "seed": 0,
        "checkpoint_every": 0,
        "keep_checkpoints": 1,
        "eval_every": 0,
        "eval_episodes": 1,
        "torch_threads": 1,
    }
    for name, least in smallest.items():
        value = getattr(config, name)
        if value < least:
            raise UserInputError(f"{option(name)} {value} is too small; remedy: at least {least}")
    if config.seed + config.n_envs > 2**32:
        raise UserInputError(f"--seed {config.seed} is too large; remedy: below 2**32, NumPy's limit")
    _check_vgs_version(config.vgs_version)
    check_device(config.device)
    _check_change(config)
    _check_risk_measure(config)
    _check_value_target(config)
    _check_track(config)


def option(name: str) -> str:
    """:return: a field's name as it stands on the command line"""
    return "--" + name.replace("_", "-")


def _check_vgs_version(version: str) -> None:
    from sb3_vgs_ppo.scaling import KNOWN_VERSIONS

    if version != VGS_OFF and version not in KNOWN_VERSIONS:
        raise UserInputError(f"--vgs-version {version!r} is not known; remedy: {VGS_OFF}, {', '.join(KNOWN_VERSIONS)}")


def _check_change(config: TrainConfig) -> None:
    from sb3_vgs_ppo.change import make_change_callback

    make_change_callback(config.on_change, config.change_kwargs)


def _check_risk_measure(config: TrainConfig) -> None:
    from sb3_vgs_ppo.ppo.risk import check_risk_measure

    check_risk_measure(config.risk_measure, config.value_head)


def _check_value_target(config: TrainConfig) -> None:
    from sb3_vgs_ppo.ppo.distribution_targets import check_value_target

    check_value_target(config.value_target, config.value_head)


def _check_track(config: TrainConfig) -> None:
    from sb3_vgs_ppo.runs.tracking import tracker_names

    tracker_names(config.track)


def check_device(device: str) -> None:
    """:raises UserInputError: no device of this name, or torch sees none here"""
    import torch as th

    try:
        kind = th.device("cpu" if device == "auto" else device).type
    except RuntimeError:
        raise UserInputError(f"--device {device!r} is not a device; remedy: auto, cpu, cuda or cuda:<index>") from None
    if kind == "cuda" and not th.cuda.is_available():
        raise UserInputError(f"--device {device!r}: torch sees no CUDA device here; remedy: cpu or auto")
