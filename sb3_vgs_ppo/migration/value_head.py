"""The critic's last layer in another form that predicts the same mean. Pure functions on state dicts."""

from __future__ import annotations

from collections.abc import Callable

import torch as th

from sb3_vgs_ppo._types import StateDict, ValueHeadName
from sb3_vgs_ppo.errors import UserInputError

HEAD_TENSORS = ("value_net.weight", "value_net.bias")


def convert_value_head(policy: StateDict, source: ValueHeadName, target: ValueHeadName, n_quantiles: int) -> StateDict:
    """
    :param policy: state dict of a policy with a ``source`` head; not changed
    :param source: kind of its head
    :param target: kind of head wanted
    :param n_quantiles: number of quantiles of a quantile head
    :return: state dict of a policy with a ``target`` head, which shares all tensors but the head's
    :raises UserInputError: only fitting to data, that is training, could make the one from the other
    """
    if (source, target) not in _CONVERSIONS:
        raise UserInputError(
            f"value_head={target!r} cannot be made from a {source} head: logits over atoms and means are not linear in "
            "each other, so it could only be fitted. Remedy: keep the head, or train anew with the other one"
        )
    convert = _CONVERSIONS[source, target]
    return {**policy, **{name: convert(policy[name], n_quantiles) for name in HEAD_TENSORS}}


def _repeat(row: th.Tensor, n_quantiles: int) -> th.Tensor:
    """
    Every quantile predicts the old value, so that the mean does too.

    Equal rows are no trap: their gradients differ by τ_k (Dabney et al. 2018, equation 10), so they part at once.

    :param row: (1, latent_dim) or (1,)
    :return: (n_quantiles, latent_dim) or (n_quantiles,)
    """
    return row.repeat(n_quantiles, *[1] * (row.dim() - 1))


def _mean(rows: th.Tensor, n_quantiles: int) -> th.Tensor:
    """
    The mean of linear predictions is the prediction of the mean weights.

    :param rows: (n_quantiles, latent_dim) or (n_quantiles,)
    :return: (1, latent_dim) or (1,)
    """
    return rows.mean(dim=0, keepdim=True)


_CONVERSIONS: dict[tuple[str, str], Callable[[th.Tensor, int], th.Tensor]] = {
    ("scalar", "quantile"): _repeat,
    ("quantile", "scalar"): _mean,
}
