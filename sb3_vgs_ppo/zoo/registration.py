"""What the zoo has to know of ``dppo`` before its commands run."""

from __future__ import annotations

import rl_zoo3.train
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

import sb3_vgs_ppo.envs  # noqa: F401  the continual environments get their ids
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.zoo.experiment import ALGO, NamedClassesManager
from sb3_vgs_ppo.zoo.search_space import convert_dppo_params, sample_dppo_params


def register() -> None:
    """
    Add ``dppo`` to the zoo's algorithms, samplers and converters, which are dictionaries that all of its commands
    share, and let its training read our hyperparameters. Calling it again changes nothing.
    """
    ALGOS[ALGO] = DistributionalPPO
    HYPERPARAMS_SAMPLER[ALGO] = sample_dppo_params
    HYPERPARAMS_CONVERTER[ALGO] = convert_dppo_params
    rl_zoo3.train.ExperimentManager = NamedClassesManager  # type: ignore[misc]
