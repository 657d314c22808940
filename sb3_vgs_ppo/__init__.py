"""PPO agents that keep learning in long and changing tasks, on Stable-Baselines3.

The public names are imported on first use, so that ``sb3-vgs-ppo --help`` does not wait for torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# On some processors (AMD's Zen 4) the last digits of MKL's matrix products depend on where in memory the matrices lie,
# so that a resumed run would leave the one that was never interrupted. MKL reads this at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

_PUBLIC = {
    "AdaptiveUPGD": "sb3_vgs_ppo.optim",
    "DistributionalPPO": "sb3_vgs_ppo.ppo",
    "UPGD": "sb3_vgs_ppo.optim",
    "VarianceGradientScaler": "sb3_vgs_ppo.scaling",
    "inspect_checkpoint": "sb3_vgs_ppo.checkpoint",
    "load_checkpoint": "sb3_vgs_ppo.ppo.loading",
    "migrate_checkpoint": "sb3_vgs_ppo.migration",
}

if TYPE_CHECKING:
    from sb3_vgs_ppo.checkpoint import inspect_checkpoint
    from sb3_vgs_ppo.migration import migrate_checkpoint
    from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD
    from sb3_vgs_ppo.ppo import DistributionalPPO
    from sb3_vgs_ppo.ppo.loading import load_checkpoint
    from sb3_vgs_ppo.scaling import VarianceGradientScaler

__all__ = [
    "UPGD",
    "AdaptiveUPGD",
    "DistributionalPPO",
    "VarianceGradientScaler",
    "__version__",
    "inspect_checkpoint",
    "load_checkpoint",
    "migrate_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
