"""UPGD and AdaptiveUPGD: what a user constructs.

Source: Elsayed & Mahmood, "Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning", ICLR 2024,
Algorithm 1 (first-order utility, global normalization). Per element, at the tensor's step t, with gradient g:

1. utility ``u ← β_u·u − (1 − β_u)·g·p``, bias-corrected ``û = u / (1 − β_u^t)``;
2. gate ``s`` in (0, 1), which grows with û relative to the range of û over all tensors of all groups;
3. noise ``ξ ~ N(0, σ²)``;
4. update ``p ← p·(1 − lr·wd) − 2·lr·(d + ξ)·(1 − s)`` with ``d = g`` (UPGD) or ``d = m̂ / (√v̂ + eps)`` (AdaptiveUPGD).

The 2 is the authors': an element of middle utility (s = 0.5) takes a full lr step, so lr means what it means in SGD and
Adam.
"""

from __future__ import annotations

from typing import ClassVar

import torch as th

from sb3_vgs_ppo.optim.base import Params, UtilityOptimizer
from sb3_vgs_ppo.optim.options import Noise, UtilityNormalization


class UPGD(UtilityOptimizer):
    """Gradient descent that protects useful weights and perturbs the rest.

    Every option but ``utility_normalization``, ``foreach`` and ``generator`` may differ between parameter groups.

    :param params: tensors, named tensors or parameter groups, as for every torch optimizer
    :param lr: learning rate, a Python number (a tensor is refused: reading it would synchronize with the device)
    :param weight_decay: decoupled weight decay per unit of learning rate; the default is the authors'
    :param beta_utility: decay β_u of the utility trace, in [0, 1); the default averages about 1,000 steps
    :param sigma: standard deviation of the noise, see ``noise``; 0 draws none
    :param utility_normalization: how the utility becomes the gate s

        - ``"minmax"``: ``s = sigmoid(2·(x − 0.5))`` with ``x = (û − min û) / (max û − min û)``, or x = 0.5 if the range
          is 0. Invariant to the scale of the loss, and ordered by utility also when every utility is negative
        - ``"max"``: ``s = sigmoid(û / max û)``, or 0.5 everywhere while ``max û <= 0``
        - ``"official"``: ``s = sigmoid(û / max u)`` with the uncorrected maximum, as in the authors' published code,
          for reproduction only. Nothing is repaired: early gates saturate, a negative maximum protects the *least*
          useful elements, and ``û = max u = 0`` (parameters that start at zero) makes those elements NaN
    :param noise: ``"absolute"`` takes sigma as it is; ``"relative"`` multiplies it, per tensor, by the root mean square
        of the update that the noise is added to, so that scaling the gradient keeps the noise-to-signal ratio
    :param foreach: True for the fast path, False for the readable one, None for the fast one where it works (plain
        tensors, no subclasses). Both give the same noise, and the same result up to rounding; the fast one holds
        temporary copies of all tensors at once, the readable one those of one tensor at a time. The fast one needs
        fewest copies where parameters lie back to back in one buffer, as those of ``DistributionalPPO``'s policies do
    :param generator: source of the noise, on the parameters' device; None for torch's global one
    :param maximize: ascend the objective instead of descending it
    :raises UserInputError: (a ``ValueError``) if an option, also one of a single group, is out of its range

    .. note::
        Parameters in half precision keep their state in float32, since an average with 1 − β_u = 0.001 stands still in
        bfloat16, and are rounded once per step. float32 and float64 parameters keep it in their own dtype.

    .. note::
        To resume bit for bit, save the random state beside ``state_dict()``, which never contains it:
        ``torch.get_rng_state()`` (on a GPU ``torch.cuda.get_rng_state()``), or ``optimizer.generator.get_state()``.
        Each step draws once per group (and, inside it, per device, dtype and number of steps so far): one flat draw for
        the tensors that have a gradient, in the group's order.

    .. note::
        ``step()`` does not synchronize with the device. Only tensors on several devices have to exchange the range of
        the utility. Under ``torch.compile`` the noise comes from the compiler's generator, so ``generator`` must be
        None.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.001,
        beta_utility: float = 0.999,
        sigma: float = 0.001,
        utility_normalization: UtilityNormalization = "minmax",
        noise: Noise = "absolute",
        foreach: bool | None = None,
        generator: th.Generator | None = None,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "beta_utility": beta_utility,
            "sigma": sigma,
            "utility_normalization": utility_normalization,
            "noise": noise,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults, generator)


class AdaptiveUPGD(UtilityOptimizer):
    """UPGD whose update is Adam's: ``d = m̂ / (√v̂ + eps)``.

    The noise is added after Adam's normalization, so that also with ``noise="absolute"`` the scale of the gradient does
    not change the noise-to-signal ratio. All other parameters, errors and notes are those of :class:`UPGD`.

    :param betas: decay of the averages of the gradient and of its square, each in [0, 1)
    :param eps: added to √v̂, >= 0; the default is that of SB3's PPO with Adam
    """

    adaptive: ClassVar[bool] = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.001,
        beta_utility: float = 0.999,
        sigma: float = 0.001,
        utility_normalization: UtilityNormalization = "minmax",
        noise: Noise = "absolute",
        foreach: bool | None = None,
        generator: th.Generator | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "beta_utility": beta_utility,
            "sigma": sigma,
            "utility_normalization": utility_normalization,
            "noise": noise,
            "foreach": foreach,
            "betas": betas,
            "eps": eps,
            "maximize": maximize,
        }
        super().__init__(params, defaults, generator)
