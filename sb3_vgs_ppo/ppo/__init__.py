"""PPO with a distributional critic, on Stable-Baselines3."""

from sb3_vgs_ppo.ppo.dppo import DistributionalPPO
from sb3_vgs_ppo.ppo.policies import (
    CnnPolicy,
    DistributionalActorCriticCnnPolicy,
    DistributionalActorCriticPolicy,
    DistributionalMultiInputActorCriticPolicy,
    MlpPolicy,
    MultiInputPolicy,
)

__all__ = [
    "CnnPolicy",
    "DistributionalActorCriticCnnPolicy",
    "DistributionalActorCriticPolicy",
    "DistributionalMultiInputActorCriticPolicy",
    "DistributionalPPO",
    "MlpPolicy",
    "MultiInputPolicy",
]
