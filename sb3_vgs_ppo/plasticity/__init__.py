"""How able to learn a network still is: measures of plasticity as functions of layers, features, weights and gates.

They need torch alone. :mod:`sb3_vgs_ppo.callbacks` logs them while an SB3 algorithm trains; ``docs/metrics.md`` says
how to read them.
"""

from sb3_vgs_ppo.plasticity.action_head import near_certain_fraction, out_of_bounds_fraction, output_norm
from sb3_vgs_ppo.plasticity.hidden_layers import (
    HiddenLayer,
    dormant_fraction,
    record_hidden_layers,
    tanh_saturation,
)
from sb3_vgs_ppo.plasticity.rank import effective_rank
from sb3_vgs_ppo.plasticity.weights import saturated_gate_fraction, weight_norm

__all__ = [
    "HiddenLayer",
    "dormant_fraction",
    "effective_rank",
    "near_certain_fraction",
    "out_of_bounds_fraction",
    "output_norm",
    "record_hidden_layers",
    "saturated_gate_fraction",
    "tanh_saturation",
    "weight_norm",
]
