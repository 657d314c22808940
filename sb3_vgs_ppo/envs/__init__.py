"""Continual environments: the task changes every so many steps, and an agent has to go on learning.

Importing this module registers them with gymnasium: ``ContinualCartPole-v0``, ``ContinualLunarLander-v0`` and
``ContinualHopper-v0``. :class:`ContinualEnv` makes one from any environment. Neither torch nor SB3 is imported.
"""

from __future__ import annotations

from sb3_vgs_ppo.envs.changes import CHANGES, Change
from sb3_vgs_ppo.envs.continual import ContinualEnv
from sb3_vgs_ppo.envs.physics import PHYSICS
from sb3_vgs_ppo.envs.registration import phase_length, phase_of, register_continual

__all__ = ["CHANGES", "PHYSICS", "Change", "ContinualEnv", "phase_length", "phase_of", "register_continual"]

register_continual()
