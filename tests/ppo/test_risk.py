"""The CVaR as the actor's objective: its gradient against that of the exact CVaR, and agents that avoid a bad tail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback

from sb3_vgs_ppo import load_checkpoint
from sb3_vgs_ppo.distributional import ValueDistribution
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.ppo.risk import cvar_advantages, cvar_level

SAFE, RISKY = 0, 1
BAD, GOOD, CERTAIN, P_BAD = -6.0, 3.0, 1.0, 0.1


def mixture(p_risky: float) -> ValueDistribution:
    """Returns of a policy that takes the risky arm with this probability."""
    probabilities = np.array([P_BAD * p_risky, 1 - p_risky, (1 - P_BAD) * p_risky])
    return ValueDistribution(np.array([BAD, CERTAIN, GOOD]), probabilities)


def test_the_arms_are_ordered_one_way_by_mean_and_the_other_way_by_cvar() -> None:
    """0.1 · −6 + 0.9 · 3 = 2.1, and (0.1 · −6 + 0.15 · 3) / 0.25 = −0.6, against 1 and 1."""
    assert mixture(1.0).mean == pytest.approx(2.1)
    assert mixture(1.0).cvar(0.25) == pytest.approx(-0.6)
    assert mixture(0.0).mean == mixture(0.0).cvar(0.25) == 1.0
    # Less of the risky arm is better for every policy that does not almost always take it: 1 − 2.8 p up to p = 5 / 6
    p = np.linspace(0.0, 0.83, 20)
    assert [float(mixture(each).cvar(0.25)) for each in p] == pytest.approx(list(1 - 2.8 * p))


@pytest.mark.parametrize("alpha", [0.07, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("p_risky", [0.2, 0.5, 0.8, 0.97])
def test_the_expected_policy_gradient_is_that_of_the_exact_cvar(alpha: float, p_risky: float) -> None:
    """
    By the likelihood ratio, d CVaR / dp is the expected advantage of the risky arm less that of the safe one; for α = 1
    it is the difference of the means.
    """
    advantages = cvar_advantages(mixture(p_risky), [BAD, CERTAIN, GOOD], alpha)
    of_risky = P_BAD * advantages[0] + (1 - P_BAD) * advantages[2]
    of_safe = advantages[1]
    step = 1e-6
    exact = (mixture(p_risky + step).cvar(alpha) - mixture(p_risky - step).cvar(alpha)) / (2 * step)
    assert of_risky - of_safe == pytest.approx(exact, rel=1e-5)
    assert p_risky * of_risky + (1 - p_risky) * of_safe == pytest.approx(0.0, abs=1e-12)


def test_a_cvar_in_the_place_of_the_value_would_choose_by_the_mean() -> None:
    """Why (3) is not r − CVaR: with whatever baseline, its expectation prefers the risky arm."""
    naive = np.array([BAD, CERTAIN, GOOD]) - mixture(0.5).cvar(0.25)
    assert P_BAD * naive[0] + (1 - P_BAD) * naive[2] - naive[1] == pytest.approx(1.1)


def test_advantages_by_hand() -> None:
    """Atoms 1 to 4 and α = 3/8: q = 2, CVaR = (¼ · 1 + ⅛ · 2) / ⅜ = 4/3, A = ⅔ − (2 − G)₊ / ⅜."""
    distribution = ValueDistribution.of(th.tensor([[4.0, 2.0, 1.0, 3.0]]).expand(4, 4))
    found = cvar_advantages(distribution, [0.0, 1.0, 2.0, 9.0], 0.375)
    assert found == pytest.approx([2 / 3 - 16 / 3, 2 / 3 - 8 / 3, 2 / 3, 2 / 3])


class Arms(gym.Env[Any, Any]):
    """
    In every episode one of two contexts, shown by the observation, and one choice; what it brings comes ``delay`` steps
    later. In context 0 the risky arm has the larger mean and the worse tail; in context 1 it is the better in both.
    """

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(0.0, 1.0, (4,), np.float32)

    def __init__(self, contexts: int = 1, delay: int = 0) -> None:
        self.contexts, self.delay = contexts, delay

    def _observe(self) -> np.ndarray:
        chosen = [0.0, 0.0] if self.choice is None else [float(self.choice == arm) for arm in (SAFE, RISKY)]
        return np.array([self.context, self.steps / 4, *chosen], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.context, self.steps, self.choice = int(self.np_random.integers(self.contexts)), 0, None
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.choice = int(action) if self.choice is None else self.choice
        is_over, self.steps = self.steps == self.delay, self.steps + 1
        return self._observe(), self._outcome() if is_over else 0.0, is_over, False, {}

    def _outcome(self) -> float:
        if self.choice == SAFE:
            return CERTAIN
        is_bad = self.context == 0 and self.np_random.random() < P_BAD
        return BAD if is_bad else GOOD


def p_risky(model: DistributionalPPO, context: int) -> float:
    observation = th.tensor([[float(context), 0.0, 0.0, 0.0]])
    return model.policy.get_distribution(observation).distribution.probs[0, RISKY].item()  # type: ignore[union-attr]


def agent(env: gym.Env[Any, Any], risk_measure: str, seed: int, **kwargs: Any) -> DistributionalPPO:
    policy_kwargs = {"net_arch": [8], "optimizer_class": th.optim.Adam, **kwargs.pop("policy_kwargs", {})}
    settings: dict[str, Any] = {"n_steps": 256, "batch_size": 128, "learning_rate": 1e-2, "vgs_version": None}
    return DistributionalPPO(
        "MlpPolicy", env, risk_measure=risk_measure, seed=seed, policy_kwargs=policy_kwargs, **{**settings, **kwargs}
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_neutral_agent_takes_the_risky_arm_and_the_risk_averse_one_the_safe_arm(seed: int) -> None:
    assert p_risky(agent(Arms(), "mean", seed).learn(1_500), context=0) > 0.9
    assert p_risky(agent(Arms(), "cvar:0.25", seed).learn(1_500), context=0) < 0.1


def test_so_does_one_with_a_categorical_critic() -> None:
    policy_kwargs = {"value_head": "categorical"}
    model = agent(Arms(), "cvar:0.25", 0, policy_kwargs=policy_kwargs).learn(1_500)
    assert p_risky(model, context=0) < 0.1


def test_risk_is_avoided_where_there_is_some_and_steps_before_it_shows() -> None:
    averse = agent(Arms(contexts=2, delay=2), "cvar:0.25", 0, gae_lambda=1.0).learn(5_400)
    assert p_risky(averse, context=0) < 0.4  # wavers, with the rounding too, between 0.01 and 0.25
    assert p_risky(averse, context=1) > 0.9
    neutral = agent(Arms(contexts=2, delay=2), "mean", 0, gae_lambda=1.0).learn(1_800)
    assert p_risky(neutral, context=0) > 0.9


class Rollout(BaseCallback):
    """Remembers the advantages and targets with which a rollout ended, before the risk measure."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer: Any = self.model.rollout_buffer  # type: ignore[attr-defined]
        self.advantages, self.returns, self.values = (
            np.copy(part) for part in (buffer.advantages, buffer.returns, buffer.values)
        )


@pytest.mark.parametrize("risk_measure", ["mean", "cvar:0.1"])
def test_only_advantages_change_and_only_with_a_risk_measure(risk_measure: str) -> None:
    model = agent(gym.make("CartPole-v1"), risk_measure, 0, n_steps=64, batch_size=64)
    rollout = Rollout()
    _, callback = model._setup_learn(64, rollout)
    env: Any = model.get_env()
    assert model.collect_rollouts(env, callback, model.rollout_buffer, 64)
    assert np.array_equal(model.rollout_buffer.returns, rollout.returns)
    assert np.array_equal(model.rollout_buffer.values, rollout.values)
    assert np.array_equal(model.rollout_buffer.advantages, rollout.advantages) is (risk_measure == "mean")
    if risk_measure != "mean":
        distribution = model.value_distribution(model.rollout_buffer.observations[:, 0])
        expected = cvar_advantages(distribution, rollout.returns[:, 0], 0.1)
        np.testing.assert_allclose(model.rollout_buffer.advantages[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_with_distributions_as_targets_advantages_are_expectations_over_them() -> None:
    """As many quantiles as the targets have atoms, so that the head leaves these as they are."""
    settings = {"n_steps": 64, "batch_size": 64, "value_target": "distribution", "policy_kwargs": {"n_quantiles": 128}}
    model = agent(gym.make("CartPole-v1"), "cvar:0.25", 0, **settings)
    with th.no_grad():
        model.policy.value_net.bias.copy_(th.linspace(-9.0, 9.0, 128))
    _, callback = model._setup_learn(64)
    env: Any = model.get_env()
    model.collect_rollouts(env, callback, model.rollout_buffer, 64)
    buffer: Any = model.rollout_buffer
    distribution = model.value_distribution(buffer.observations[:, 0])
    expected = cvar_advantages(distribution, buffer.value_targets[:, 0].T, 0.25).mean(axis=0)
    np.testing.assert_allclose(buffer.advantages[:, 0], expected, rtol=1e-4, atol=1e-5)
    of_lambda_returns = cvar_advantages(distribution, buffer.returns[:, 0], 0.25)
    assert np.abs(of_lambda_returns - expected).max() > 0.01


def test_it_is_saved_with_the_model(tmp_path: Path) -> None:
    path = tmp_path / "averse.zip"
    agent(Arms(), "cvar:0.25", 0).save(path)
    assert DistributionalPPO.load(path).risk_measure == load_checkpoint(path).risk_measure == "cvar:0.25"
    with pytest.raises(UserInputError, match="risk_measure='cvar'"):
        DistributionalPPO.load(path, risk_measure="cvar")


@pytest.mark.parametrize(
    "risk_measure", ["cvar", "cvar:", "cvar:0", "cvar:1", "cvar:1.5", "cvar:nan", "var:0.5", "", 3]
)
def test_what_is_no_risk_measure_is_refused_with_the_remedy(risk_measure: Any) -> None:
    with pytest.raises(UserInputError, match=r"risk_measure=.*; remedy: 'mean', or 'cvar:'"):
        agent(Arms(), risk_measure, 0)


def test_a_scalar_critic_has_no_tail() -> None:
    with pytest.raises(UserInputError, match=r"risk_measure='cvar:0\.1' needs .*; remedy: value_head 'quantile'"):
        agent(Arms(), "cvar:0.1", 0, policy_kwargs={"value_head": "scalar"})


def test_levels() -> None:
    assert cvar_level("mean") is None
    assert cvar_level("cvar:0.25") == 0.25
