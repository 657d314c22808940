"""The hand-derived gradient against autograd's, and when it is left to autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO, MlpPolicy
from sb3_vgs_ppo.ppo.minibatch_log import MinibatchLog
from sb3_vgs_ppo.ppo.minibatches import Minibatch, minibatches
from sb3_vgs_ppo.ppo.mlp_loss import MlpLoss

from .conftest import image_env
from .test_dppo import HEADS, SpacesEnv, small_model

pytestmark = pytest.mark.usefixtures("each_computation")

BOX = spaces.Box(-1.0, 1.0, (5,), np.float32)
ACTIONS = {"discrete": spaces.Discrete(3), "box": spaces.Box(-2.0, 2.0, (6,), np.float32)}


def collected(action: str, head: str, **kwargs: Any) -> DistributionalPPO:
    """A model with a rollout that its policy has moved away from, so that some ratios are clipped."""
    policy_kwargs = {**HEADS[head], **kwargs.pop("policy_kwargs", {})}
    observation_space = copy.deepcopy(BOX)
    observation_space.seed(3)
    model = small_model(SpacesEnv(observation_space, ACTIONS[action]), policy_kwargs=policy_kwargs, **kwargs)
    model.learn(64)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.1 * th.randn_like(parameter))
    return model


def gradient(evaluate: Callable[..., Any], model: DistributionalPPO, minibatch: Minibatch) -> tuple[th.Tensor, ...]:
    loss, backward = evaluate(minibatch, MinibatchLog())
    backward()
    return loss.detach(), *(parameter.grad.clone() for parameter in model.policy.parameters())  # type: ignore[union-attr]


def both(model: DistributionalPPO, batch_size: int) -> tuple[tuple[th.Tensor, ...], tuple[th.Tensor, ...]]:
    minibatch = next(minibatches(model.rollout_buffer, batch_size))
    fast, _ = model._choose_evaluation(list(model.policy.parameters()))
    assert isinstance(fast, MlpLoss)
    by_hand = gradient(fast, model, minibatch)
    model.policy.optimizer.zero_grad()
    return by_hand, gradient(model._evaluate, model, minibatch)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("ent_coef", [0.0, 0.013])
@pytest.mark.parametrize("batch_size", [64, 50, 1])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_with_a_scalar_head_the_gradient_is_autograds_bit_for_bit(
    action: str, ent_coef: float, batch_size: int, layer_norm: bool
) -> None:
    model = collected(action, "scalar", ent_coef=ent_coef, vf_coef=0.3, policy_kwargs={"layer_norm": layer_norm})
    (_, *ours), (_, *theirs) = both(model, batch_size)
    assert all(th.equal(mine, expected) for mine, expected in zip(ours, theirs, strict=True))
    assert sum(mine.abs().max() > 0 for mine in ours) >= len(ours) / 2, "a single sample may be clipped"


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("activation", [th.nn.Tanh, th.nn.ReLU])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("layer_norm", [False, True])
def test_with_any_head_it_is_autograds_up_to_rounding(
    head: str, action: str, activation: type[th.nn.Module], layer_norm: bool
) -> None:
    net_arch = {"pi": [8], "vf": [7, 16, 5]}
    kwargs = {"activation_fn": activation, "net_arch": net_arch, "share_features_extractor": False}
    kwargs["layer_norm"] = layer_norm
    model = collected(action, head, ent_coef=0.01, normalize_advantage=False, policy_kwargs=kwargs)
    for mine, expected in zip(*both(model, 32), strict=True):
        th.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


def test_other_kappas() -> None:
    for kappa in (0.0, 0.3):
        model = collected("discrete", "quantile", policy_kwargs={"huber_kappa": kappa})
        for mine, expected in zip(*both(model, 32), strict=True):
            th.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("head", [name for name in HEADS if name != "scalar"])
def test_with_distributions_as_targets(head: str) -> None:
    model = collected("box", head, value_target="distribution")
    for mine, expected in zip(*both(model, 32), strict=True):
        th.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


class AutogradPPO(DistributionalPPO):
    """Evaluates minibatches by autograd, because a seam is overridden."""

    def _evaluate(self, minibatch: Minibatch, log: MinibatchLog) -> tuple[th.Tensor, Callable[[], None]]:
        return super()._evaluate(minibatch, log)


@pytest.mark.parametrize(
    ("head", "action", "optimizer_class", "version"),
    [
        ("quantile", "box", AdaptiveUPGD, "3.0"),
        ("scalar", "discrete", UPGD, "1.0"),
        ("categorical", "box", th.optim.Adam, "2.0"),
        ("categorical-none", "discrete", th.optim.AdamW, "3.1"),
        ("quantile", "discrete", AdaptiveUPGD, "4.0"),
    ],
)
def test_both_agree_over_a_thousand_steps(head: str, action: str, optimizer_class: Any, version: str) -> None:
    """250 epochs of 4 minibatches of one rollout; a slow learner, since rounding grows with distance."""
    changes = []
    for algorithm in (AutogradPPO, DistributionalPPO):
        observation_space = copy.deepcopy(BOX)
        observation_space.seed(3)
        model = algorithm(
            "MlpPolicy",
            SpacesEnv(observation_space, ACTIONS[action]),
            learning_rate=1e-4,
            n_steps=64,
            batch_size=16,
            n_epochs=250,
            seed=5,
            device="cpu",
            vgs_version=version,
            policy_kwargs={**HEADS[head], "optimizer_class": optimizer_class, "net_arch": [8]},
        )
        start = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
        model.learn(64)
        changes.append(th.nn.utils.parameters_to_vector(model.policy.parameters()).detach() - start)
    readable, fast = changes
    assert readable.abs().max() > 1e-2, "it must have learned something for the agreement to mean anything"
    # 4e-7 and less; Adam, which divides by the gradient's size, makes 1e-3 of what is rounded off in small gradients
    assert (fast - readable).norm() < (5e-3 if optimizer_class is th.optim.Adam else 1e-5) * readable.norm()


class OtherLoss(DistributionalPPO):
    def _policy_loss(self, minibatch: Minibatch, log_prob: th.Tensor, log: MinibatchLog) -> th.Tensor:
        return 2 * super()._policy_loss(minibatch, log_prob, log)


class OtherFeatures(FlattenExtractor):
    pass


class OtherPolicy(MlpPolicy):
    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        return super().extract_features(2 * obs, features_extractor)


def hooked(change: Callable[[Any], Any]) -> DistributionalPPO:
    model = small_model()
    change(model.policy)
    return model


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: OtherLoss("MlpPolicy", "CartPole-v1", device="cpu"), id="overridden seam"),
        pytest.param(lambda: small_model(policy=OtherPolicy), id="overridden policy"),
        pytest.param(lambda: small_model(policy_kwargs={"features_extractor_class": OtherFeatures}), id="extractor"),
        pytest.param(lambda: small_model(policy_kwargs={"activation_fn": th.nn.GELU}), id="activation"),
        pytest.param(lambda: small_model("Pendulum-v1", use_sde=True), id="gSDE"),
        pytest.param(lambda: small_model(SpacesEnv(BOX, spaces.MultiDiscrete([2, 3]))), id="MultiDiscrete"),
        pytest.param(lambda: small_model(SpacesEnv(spaces.Discrete(4), spaces.Discrete(2))), id="one-hot"),
        pytest.param(lambda: small_model(image_env(), "CnnPolicy"), id="images"),
        pytest.param(lambda: small_model(clip_range_vf=0.2, policy_kwargs=HEADS["scalar"]), id="clip_range_vf"),
        pytest.param(lambda: hooked(lambda p: p.action_net.register_forward_hook(print)), id="module hook"),
        pytest.param(lambda: hooked(lambda p: p.value_net.weight.register_hook(print)), id="tensor hook"),
        pytest.param(lambda: hooked(lambda p: p.value_net.weight.requires_grad_(False)), id="frozen"),
        pytest.param(
            lambda: hooked(lambda p: p.mlp_extractor.policy_net.insert(1, th.nn.LayerNorm(64, bias=False))),
            id="LayerNorm without bias",
        ),
        pytest.param(
            lambda: hooked(lambda p: p.mlp_extractor.policy_net.insert(1, th.nn.RMSNorm(64))), id="another norm"
        ),
        pytest.param(
            lambda: hooked(lambda p: th.nn.utils.parametrizations.weight_norm(p.action_net)), id="weight norm"
        ),
        pytest.param(lambda: hooked(lambda p: setattr(p, "spare", th.nn.Linear(1, 1))), id="unused parameters"),
    ],
)
def test_what_is_not_known_is_left_to_autograd(make: Callable[[], DistributionalPPO]) -> None:
    model = make()
    assert model._choose_evaluation(list(model.policy.parameters()))[0] == model._evaluate


def test_an_overridden_seam_takes_effect() -> None:
    losses = []
    for algorithm in (DistributionalPPO, OtherLoss):
        model = algorithm("MlpPolicy", "CartPole-v1", n_steps=64, n_epochs=1, seed=1, device="cpu", max_grad_norm=1e9)
        model.learn(64)
        losses.append(model.logger.name_to_value["train/grad_norm"])
    assert losses[1] != losses[0]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_acting_draws_what_sb3_draws(env_id: str, deterministic: bool) -> None:
    ours = small_model(env_id, policy_kwargs=HEADS["scalar"]).policy
    theirs = PPO("MlpPolicy", env_id, device="cpu").policy
    theirs.load_state_dict(ours.state_dict())
    observations = th.randn(8, *gym.make(env_id).observation_space.shape)  # type: ignore[misc]
    results = []
    for policy in (ours, theirs):
        th.manual_seed(2)
        with th.no_grad(), ours.acting():
            results.append((*policy(observations, deterministic), th.rand(1)))
    for mine, expected in zip(*results, strict=True):
        assert th.equal(mine, expected)
        assert mine.shape == expected.shape
