"""Callbacks for any algorithm of SB3."""

from sb3_vgs_ppo.callbacks.plasticity import PlasticityCallback, measure_plasticity

__all__ = ["PlasticityCallback", "measure_plasticity"]
