"""How many directions features use.

Source: Kumar, Agarwal, Ghosh & Levine, "Implicit Under-Parameterization Inhibits Data-Efficient Deep Reinforcement
Learning", ICLR 2021.
"""

from __future__ import annotations

import torch as th
from torch import Tensor

from sb3_vgs_ppo.errors import UserInputError


def effective_rank(features: Tensor, delta: float = 0.01) -> int:
    """
    Smallest k for which the k largest singular values make up 1 − delta of the sum of all (Kumar et al. 2021, srank).

    As in the paper the values are not squared and features are not centred, so that a feature which is the same in all
    states counts as a direction, and a large one hides others.

    :param features: finite, shape (states, width); the rank is at most the smaller of the two
    :param delta: part of the sum that is left out; 0.01 as in the paper
    :return: 0 where all features are 0
    :raises UserInputError: delta is out of its range
    """
    if not 0.0 <= delta < 1.0:
        raise UserInputError(f"delta {delta} is not in [0, 1)")
    sums = th.linalg.svdvals(features.to(th.promote_types(features.dtype, th.float32))).double().cumsum(0)
    total = sums[-1]
    return 0 if total == 0 else int((sums < (1.0 - delta) * total).sum()) + 1
