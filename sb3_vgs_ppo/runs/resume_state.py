"""What a checkpoint holds besides the model, so that a killed run can be continued as if nothing had happened.

A run is saved between an update and the next rollout. There the rollout buffer is spent, the logger has written
everything, and gSDE's exploration matrices are about to be drawn anew: none of them is part of the state.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.change import ChangeCallback
from sb3_vgs_ppo.checkpoint import dump_tensors, read_checkpoint
from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.errors import CheckpointError
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.env_state import environment_states, load_environment_states
from sb3_vgs_ppo.runs.extent import Extent
from sb3_vgs_ppo.runs.plain_values import from_plain, to_plain
from sb3_vgs_ppo.runs.random_state import load_random_state, random_state

RUN_STATE = "run_state.pt"
"""Member of a checkpoint; not ``.pth``, which SB3 would load as a state dict of the model."""

SCHEMA = 2
"""1: before agents could notice changes."""

_ATTRIBUTES = ("_last_obs", "_last_episode_starts", "_last_original_obs", "_nonfinite_in_a_row")
_BUFFERS = ("ep_info_buffer", "ep_success_buffer")


@dataclass(frozen=True)
class ResumeState:
    """
    :param iteration: number of rollouts behind the run
    :param extent: length of the growing files
    :param seed: seed of the episodes that were begun at the checkpoint, None where environments are snapshots
    :param environments: see :func:`sb3_vgs_ppo.runs.env_state.environment_states`
    :param model: attributes of the model that its own file does not hold
    :param random: see :func:`sb3_vgs_ppo.runs.random_state.random_state`
    :param change: state of the :class:`~sb3_vgs_ppo.change.ChangeCallback`, None where there is none
    """

    iteration: int
    extent: Extent
    seed: int | None
    environments: list[StateDict]
    model: StateDict
    random: StateDict
    change: StateDict | None = None

    @classmethod
    def of_run(
        cls,
        model: DistributionalPPO,
        iteration: int,
        extent: Extent,
        seed: int | None,
        change: ChangeCallback | None = None,
    ) -> ResumeState:
        """
        :param model: model with its environments, between an update and the next rollout
        :param iteration: number of rollouts behind it
        :param extent: length of the growing files
        :param seed: seed with which new episodes have just been begun, if they have
        :param change: what notices changes, if anything does
        """
        env = model.get_env()
        assert env is not None
        attributes = {name: to_plain(getattr(model, name)) for name in _ATTRIBUTES}
        buffers = {name: to_plain(list(getattr(model, name))) for name in _BUFFERS}
        return cls(
            iteration=iteration,
            extent=extent,
            seed=seed,
            environments=environment_states(env),
            model={**attributes, **buffers},
            random=random_state(model.device),
            change=change.state_dict() if change else None,
        )

    def restore(self, model: DistributionalPPO, change: ChangeCallback | None = None) -> None:
        """
        :param model: the model of the same checkpoint, with environments made as those of the run were
        :param change: made as that of the run was
        """
        env = model.get_env()
        assert env is not None
        load_environment_states(env, self.environments, self.seed)
        values = from_plain(self.model)
        for name in _BUFFERS:
            values[name] = deque(values[name], maxlen=model._stats_window_size)
        vars(model).update(values)
        if change is not None and self.change is not None:
            change.load_state_dict(self.change)
        load_random_state(self.random, model.device)  # last: building and resetting draw from the generators

    def to_bytes(self) -> bytes:
        """:return: content of the member :data:`RUN_STATE`"""
        return dump_tensors({"schema": SCHEMA, **vars(self), "extent": self.extent.to_state()})


def read_resume_state(path: Path) -> ResumeState:
    """
    :param path: checkpoint of a run; all of it is compared with its digests
    :raises CheckpointError: the file is damaged, holds no state of a run, or one of a newer schema
    """
    state = read_checkpoint(path).tensors(RUN_STATE)
    with as_checkpoint_error(f"{path}: {RUN_STATE}"):
        schema = state.pop("schema")
        if schema > SCHEMA:
            raise CheckpointError(
                f"{path}: {RUN_STATE}: schema {schema} is newer than {SCHEMA}, the newest that this version reads; "
                "upgrade sb3-vgs-ppo to resume this run"
            )
        return ResumeState(**{**state, "extent": Extent.from_state(state["extent"])})
