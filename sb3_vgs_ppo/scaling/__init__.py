"""The Variance Gradient Scaler (VGS): gradients are scaled down by how noisy they are.

:class:`VarianceGradientScaler` is the scaler; :func:`attach` puts one on any torch optimizer;
:mod:`~sb3_vgs_ppo.scaling.versions` lists what its versions measure.
"""

from sb3_vgs_ppo.scaling.arguments import check_vgs_kwargs
from sb3_vgs_ppo.scaling.attachment import Attachment, attach, attachment_of
from sb3_vgs_ppo.scaling.scaler import VarianceGradientScaler
from sb3_vgs_ppo.scaling.state import migrate_state, parse_state
from sb3_vgs_ppo.scaling.versions import DEFAULT_VERSION, KNOWN_VERSIONS

__all__ = [
    "DEFAULT_VERSION",
    "KNOWN_VERSIONS",
    "Attachment",
    "VarianceGradientScaler",
    "attach",
    "attachment_of",
    "check_vgs_kwargs",
    "migrate_state",
    "parse_state",
]
