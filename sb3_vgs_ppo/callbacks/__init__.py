"""Callbacks for any algorithm of SB3."""

from sb3_vgs_ppo.callbacks.plasticity import PlasticityCallback, measure_plasticity
from sb3_vgs_ppo.callbacks.vgs import VGSCallback

__all__ = ["PlasticityCallback", "VGSCallback", "measure_plasticity"]
