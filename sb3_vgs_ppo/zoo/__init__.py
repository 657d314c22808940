"""
``DistributionalPPO`` in rl-baselines3-zoo, under the name ``dppo``: its commands, hyperparameters and search space.

Needs the extra ``zoo`` (``pip install "sb3-vgs-ppo[zoo]"``); nothing else in the package imports this room.
"""

from sb3_vgs_ppo.zoo.experiment import ALGO, HYPERPARAMS
from sb3_vgs_ppo.zoo.registration import register

__all__ = ["ALGO", "HYPERPARAMS", "register"]
