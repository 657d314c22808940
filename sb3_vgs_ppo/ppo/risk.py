"""Risk measures: whether the actor maximises the mean of its returns or the mean of the worst of them.

Let Z be the distribution of the return G from a state s under the policy π, as the critic predicts it, and
x₊ = max(x, 0). The conditional value at risk, the mean of the worst share α of the returns, is

    CVaR_α(Z) = max_ν  ν − E[(ν − G)₊] / α                                                                  (1)

with its maximum at the value at risk ν = q_α, the α-quantile (Rockafellar & Uryasev, "Optimization of Conditional
Value-at-Risk", Journal of Risk 2000, theorem 1). At a maximum the derivative through ν vanishes, so that the likelihood
ratio alone remains (Tamar, Glassner & Mannor, "Optimizing the CVaR via Sampling", AAAI 2015):

    ∇ CVaR_α(Z) = E[∇ log π(a|s) · −(q_α − G)₊ / α]                                                         (2)

Anything that does not depend on the action may be added. What makes the expectation 0 is, with (1),

    A(s, a) = q_α − (q_α − G)₊ / α − CVaR_α(Z)                                                              (3)

and this is the advantage here, with the λ-return for G, and q_α and CVaR_α those of the predicted Z(s). For α = 1 it is
G − E[Z], which is the generalised advantage estimate itself: the mean is the limit of the family. With another ν in
the place of q_α it is, by (1), the gradient of a lower bound of the CVaR, the looser the further ν is off.

CVaR_α(Z(s)) in the place of the value, in generalised advantages of r + γ CVaR' − CVaR, does not do it: in the last
step of an episode only r depends on the action, and the arm of a bandit with the larger mean wins, whatever its tail.

Two things to know. The λ-return adds a mean value to the rewards of about 1 / (1 − γλ) steps, and what is beyond them
counts as certain; with ``gae_lambda=1`` it is the whole return, and with ``value_target="distribution"`` Z^λ takes its
place in (3), whose law is that of the whole return for every λ. And an ascent can end in a local maximum: where the
policy already takes an action almost always, all of the worst share α is its own, and the others are not missed.

What is maximised, in every state visited, is the CVaR of the return from there on. That is the criterion of
risk-sensitive distributional agents (Dabney et al., "Implicit Quantile Networks", ICML 2018). From a start state it is
the CVaR of the whole return given how the agent goes on, not the best one over all policies: that needs a policy that
knows what it has earned so far (Bäuerle & Ott 2011; Lim & Malik, "Distributional Reinforcement Learning for
Risk-Sensitive Policies", NeurIPS 2022).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_vgs_ppo.distributional import QuantileHead, ValueDistribution, rollout_distributions
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo.policies import DistributionalActorCriticPolicy

MEAN = "mean"
_CVAR = "cvar:"


def check_risk_measure(risk_measure: str, value_head: str) -> None:
    """
    :param risk_measure: ``"mean"``, or ``"cvar:α"`` with a number α between 0 and 1
    :param value_head: name of the critic's head
    :raises UserInputError: it is neither, or the critic predicts no distribution to take a CVaR of
    """
    if cvar_level(risk_measure) is not None and value_head == "scalar":
        raise UserInputError(
            f"risk_measure={risk_measure!r} needs a distribution of returns, and value_head='scalar' predicts their "
            "mean; remedy: value_head 'quantile' or 'categorical', or risk_measure='mean'"
        )


def prepare_critic(risk_measure: str, policy: DistributionalActorCriticPolicy) -> None:
    """
    Let a quantile head learn unsmoothed quantiles for a CVaR, unless the user has given a ``huber_kappa``: where the
    spread of the returns is of the order of κ, smoothed ones lie between quantile and mean, and a threshold q_α that is
    too high makes the bound (1) so loose that the actor can go for the mean after all.

    :param policy: whose critic has not learnt yet, or is to go on
    :raises UserInputError: see :func:`check_risk_measure`
    """
    check_risk_measure(risk_measure, policy.value_head)
    head = policy.value_net
    if risk_measure != MEAN and isinstance(head, QuantileHead) and "huber_kappa" not in policy.value_head_kwargs:
        head.huber_kappa = 0.0


def cvar_level(risk_measure: str) -> float | None:
    """
    :return: α of ``"cvar:α"``, None for ``"mean"``
    :raises UserInputError: it is neither
    """
    if risk_measure == MEAN:
        return None
    try:
        alpha = float(risk_measure.removeprefix(_CVAR)) if risk_measure.startswith(_CVAR) else 0.0
    except (AttributeError, ValueError):
        alpha = 0.0
    if not 0 < alpha < 1:
        raise UserInputError(
            f"risk_measure={risk_measure!r}; remedy: 'mean', or 'cvar:' and a share of the returns between 0 and 1, "
            "such as 'cvar:0.25'"
        )
    return alpha


def apply_risk_measure(
    risk_measure: str,
    buffer: RolloutBuffer,
    policy: DistributionalActorCriticPolicy,
    outcomes: npt.NDArray[np.float32] | None = None,
) -> None:
    """
    Replace the advantages of a rollout by those of the risk measure. The critic's targets stay: it goes on predicting
    all returns.

    :param risk_measure: one that :func:`check_risk_measure` accepts; ``"mean"`` leaves everything as it is
    :param buffer: full, with returns computed and not yet read
    :param policy: that collected it
    :param outcomes: where the critic learns from distributions, the atoms of equal probability of these, (steps,
        n_envs, m): advantages are then expectations over them. The λ-returns, narrower than what such a critic
        predicts, would fall below q_α too seldom
    """
    alpha = cvar_level(risk_measure)
    if alpha is None:
        return
    outcomes = buffer.returns[..., None] if outcomes is None else outcomes
    for steps, distribution in rollout_distributions(buffer, policy):
        of_atoms = cvar_advantages(distribution, np.moveaxis(outcomes[steps], -1, 0), alpha)  # (m, steps, n_envs)
        buffer.advantages[steps] = of_atoms.mean(axis=0)


def cvar_advantages(distribution: ValueDistribution, returns: npt.ArrayLike, alpha: float) -> npt.NDArray[np.float64]:
    """
    Equation (3).

    :param distribution: predicted for the states, batch shape (...)
    :param returns: λ-returns G, (...)
    :param alpha: α in (0, 1]
    :return: advantages, (...), in units of the return
    """
    threshold = distribution.value_at_risk(alpha)
    shortfalls = np.maximum(threshold - np.asarray(returns, np.float64), 0.0)
    return threshold - shortfalls / alpha - distribution.cvar(alpha)
