from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from sb3_vgs_ppo import load_checkpoint
from sb3_vgs_ppo.change import (
    RaiseEntropy,
    RaiseLearningRate,
    RaiseNoise,
    ResetOptimizer,
    Response,
    RestartHead,
    RestartNetwork,
    ShrinkHead,
    Surprise,
)
from sb3_vgs_ppo.checkpoint import dump_tensors, load_tensors
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.optim import AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.scaling import attach

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "seed": 0}


def trained(env: str = "CartPole-v1", **policy_kwargs: Any) -> PPO:
    kwargs = {"net_arch": [8], **policy_kwargs}
    return PPO("MlpPolicy", make_vec_env(env, 1, seed=0), policy_kwargs=kwargs, learning_rate=0.01, **SMALL).learn(48)


def respond(model: PPO, response: Response, pit: float = 0.2, seed: int = 1) -> None:
    response.check(model)
    response.respond(model, Surprise(5.0, pit), th.Generator().manual_seed(seed))


def head(model: PPO) -> dict[str, th.Tensor]:
    policy = model.policy
    parts = {name: value for name, value in policy.state_dict().items() if name.startswith(("action_net", "log_std"))}
    return {name: value.clone() for name, value in parts.items()}


def others(model: PPO) -> list[th.Tensor]:
    return [value.clone() for name, value in model.policy.state_dict().items() if name not in head(model)]


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a_restarted_head_is_as_sb3_begins_and_nothing_else_changes(env: str) -> None:
    model = trained(env)
    before, torch_state = others(model), th.get_rng_state()
    respond(model, RestartHead())
    weight = model.policy.action_net.weight
    rows = weight.shape[0]
    assert th.allclose(weight @ weight.T, 0.01**2 * th.eye(rows), atol=1e-9)
    assert not model.policy.action_net.bias.any()
    assert env == "CartPole-v1" or model.policy.log_std.tolist() == [0.0]
    assert all(map(th.equal, before, others(model)))
    assert th.equal(torch_state, th.get_rng_state())
    observation = model.env.observation_space.sample()[None]  # type: ignore[union-attr]
    distribution = model.policy.get_distribution(th.as_tensor(observation)).distribution
    if env == "CartPole-v1":
        assert distribution.probs.tolist()[0] == pytest.approx([0.5, 0.5], abs=0.01)


def test_the_generator_alone_decides_the_fresh_weights() -> None:
    models = [trained() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        th.manual_seed(seed + 10 * models.index(model))
        respond(model, RestartHead(), seed=seed)
    weights = [model.policy.action_net.weight for model in models]
    assert th.equal(weights[0], weights[1])
    assert not th.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("keep", "pit", "share"),
    [(0.25, 0.2, 0.25), (None, 0.2, 0.4), (None, 0.45, 0.9), (None, 0.8, 1.0), (None, math.nan, 0.0)],
)
def test_a_head_is_shrunk_by_the_share_of_the_prediction_that_still_holds(
    keep: float | None, pit: float, share: float
) -> None:
    model, fresh = trained("Pendulum-v1"), trained("Pendulum-v1")
    old = head(model)
    respond(fresh, RestartHead())
    respond(model, ShrinkHead(keep), pit=pit)
    for name, value in head(model).items():
        assert th.allclose(value, share * old[name] + (1 - share) * head(fresh)[name], atol=1e-7), name
    assert th.allclose(head(model)["action_net.bias"], old["action_net.bias"]) == (share == 1.0)


def test_without_orthogonal_initialisation_the_head_begins_as_a_linear_layer_of_torch() -> None:
    model = trained(ortho_init=False, net_arch=[400])
    respond(model, RestartHead())
    for parameter in model.policy.action_net.parameters():
        assert 0.0 < parameter.abs().max() <= 1 / math.sqrt(400)
    assert model.policy.action_net.weight.std().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.1)


@pytest.mark.parametrize("ortho_init", [False, True])
def test_a_head_without_a_bias_is_restarted(ortho_init: bool) -> None:
    model = trained(ortho_init=ortho_init)
    old = model.policy.action_net.weight.detach().clone()
    model.policy.action_net.bias = None  # type: ignore[assignment]
    respond(model, RestartHead())
    assert not th.allclose(model.policy.action_net.weight, old)


@pytest.mark.parametrize(("reset", "n_left"), [("head", 4), ("none", 6), ("all", 0)])
@pytest.mark.parametrize("optimizer_class", [th.optim.Adam, AdaptiveUPGD])
def test_optimizer_state_of_the_touched_tensors_begins_anew(reset: Any, n_left: int, optimizer_class: Any) -> None:
    """Weights and biases of two hidden layers and two heads: eight tensors, two of which are the action head's."""
    model = trained(optimizer_class=optimizer_class)
    optimizer = model.policy.optimizer
    assert len(optimizer.state) == 8
    steps = int(optimizer.state[model.policy.value_net.weight]["step"])
    respond(model, ShrinkHead(0.5, reset))
    touched = set(model.policy.action_net.parameters())
    assert len(set(optimizer.state) - touched) == (0 if reset == "all" else 6)
    assert (touched <= set(optimizer.state)) == (reset == "none")
    model.learn(16, reset_num_timesteps=False)
    expected = {"head": (2, steps + 2), "none": (steps + 2, steps + 2), "all": (2, 2)}[reset]
    tensors = (model.policy.action_net.weight, model.policy.value_net.weight)
    assert tuple(int(optimizer.state[tensor]["step"]) for tensor in tensors) == expected


def test_a_restarted_network_is_another_one_that_begins_as_sb3_begins() -> None:
    model = trained()
    torch_state = th.get_rng_state()
    old = {name: value.clone() for name, value in model.policy.state_dict().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(th, "manual_seed", lambda seed: pytest.fail("it seeds the devices of actions too"))
        respond(model, RestartNetwork(), seed=1)
    assert not model.policy.optimizer.state
    fresh = {name: value.clone() for name, value in model.policy.state_dict().items()}
    for name, value in fresh.items():
        if name.endswith("bias"):
            assert not value.any(), name
        else:
            assert not th.allclose(value, old[name], atol=0.01 * value.abs().max().item()), name
    assert fresh["action_net.weight"].norm(dim=1).tolist() == pytest.approx([0.01, 0.01])
    assert fresh["value_net.weight"].norm(dim=1).tolist() == pytest.approx([1.0])
    respond(model, RestartNetwork(), seed=1)
    assert all(map(th.equal, fresh.values(), model.policy.state_dict().values()))
    respond(model, RestartNetwork(), seed=2)
    assert not th.equal(fresh["action_net.weight"], model.policy.action_net.weight)
    assert th.equal(torch_state, th.get_rng_state())


@pytest.mark.parametrize("version", ["3.0", "4.0"])
@pytest.mark.parametrize("attached", [False, True])
def test_vgs_meets_restarted_weights_as_for_the_first_time(version: str, attached: bool) -> None:
    if attached:
        model: Any = trained()
        vgs = attach(model.policy.optimizer, version).vgs
    else:
        env = make_vec_env("CartPole-v1", 1, seed=0)
        model = DistributionalPPO("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, vgs_version=version, **SMALL)
        vgs = model.vgs
    model.learn(64)
    n_elements = [parameter.numel() for parameter in vgs.parameters]
    head = {id(model.policy.action_net.weight), id(model.policy.action_net.bias)}
    is_head = [id(parameter) in head for parameter in vgs.parameters]

    def known() -> list[bool]:
        """:return: whether there are statistics of each tensor"""
        return [weight > 0.0 for weight in vgs.state_dict()["param_ema_weight"].tolist()]

    assert all(known())
    before = vgs.state_dict()
    respond(model, RestartHead(reset="none"))
    assert all(known())
    respond(model, RestartHead())
    assert known() == [not restarted for restarted in is_head]
    after = vgs.state_dict()
    assert after["step_count"] == before["step_count"]
    key = "element_grad_mean_ema" if version == "4.0" else "param_grad_mean_ema"
    sizes = n_elements if version == "4.0" else [1] * len(n_elements)
    kept = zip(before[key].split(sizes), after[key].split(sizes), is_head, strict=True)
    assert all(not new.any() if restarted else th.equal(old, new) for old, new, restarted in kept)
    model.learn(16)
    assert all(known())
    respond(model, RestartNetwork())
    assert not any(known())
    assert vgs.state_dict()["step_count"] == 0


def test_reset_optimizer_keeps_every_weight() -> None:
    model = trained()
    before = [value.clone() for value in model.policy.state_dict().values()]
    respond(model, ResetOptimizer())
    assert not model.policy.optimizer.state
    assert all(map(th.equal, before, model.policy.state_dict().values()))


def test_the_entropy_bonus_is_raised_in_updates_alone_and_falls_back_linearly() -> None:
    model, response = trained(), RaiseEntropy(bonus=0.3, rollouts=3)
    model.ent_coef = 0.1
    respond(model, response)
    seen = []
    for _ in range(5):
        response.before_update(model)
        seen.append(model.ent_coef)
        response.after_update(model)
        assert model.ent_coef == 0.1
    assert seen == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.1])


def test_a_further_alarm_raises_anew_from_the_usual_value() -> None:
    model, response = trained(), RaiseEntropy(bonus=0.3, rollouts=3)
    respond(model, response)
    response.before_update(model)
    response.after_update(model)
    respond(model, response)
    response.before_update(model)
    assert model.ent_coef == pytest.approx(0.3)


def test_the_noise_of_every_group_is_raised() -> None:
    model = trained(optimizer_class=AdaptiveUPGD, optimizer_kwargs={"sigma": 0.01})
    optimizer = model.policy.optimizer
    optimizer.add_param_group({"params": [th.nn.Parameter(th.zeros(1))], "sigma": 0.5})
    response = RaiseNoise(factor=5.0, rollouts=2)
    respond(model, response)
    seen = []
    for _ in range(3):
        response.before_update(model)
        seen.append([group["sigma"] for group in optimizer.param_groups])
        response.after_update(model)
    assert seen == [pytest.approx([0.05, 2.5]), pytest.approx([0.03, 1.5]), [0.01, 0.5]]


def test_a_schedule_of_the_bonus_goes_on() -> None:
    model, response = trained(), RaiseEntropy(bonus=0.3, rollouts=3)
    respond(model, response)
    seen = []
    for scheduled in (0.1, 0.06, 0.02, 0.0):
        model.ent_coef = scheduled
        response.before_update(model)
        seen.append(model.ent_coef)
        response.after_update(model)
        assert model.ent_coef == scheduled
    assert seen == pytest.approx([0.4, 0.26, 0.12, 0.0])


def test_the_learning_rate_is_raised_in_updates_alone_along_its_schedule() -> None:
    model, response = trained(), RaiseLearningRate(factor=5.0, rollouts=4)
    usual = model.lr_schedule = LinearSchedule(0.01, 0.0, 1.0)
    respond(model, response)
    seen = []
    for remaining in (1.0, 0.8, 0.6, 0.4, 0.2):
        model._current_progress_remaining = remaining
        response.before_update(model)
        model.train()
        seen.append(model.policy.optimizer.param_groups[0]["lr"] / usual(remaining))
        response.after_update(model)
        assert model.lr_schedule is usual
    assert seen == pytest.approx([5.0, 4.0, 3.0, 2.0, 1.0])


@pytest.mark.parametrize("reloaded", [False, True])
def test_a_raised_learning_rate_is_left_where_a_file_is_loaded(reloaded: bool, tmp_path: Path) -> None:
    """Its agent has the usual schedule, and the agent that was saved still the raised one."""
    model, first, second = trained(), RaiseLearningRate(3.0, rollouts=2), RaiseLearningRate(3.0, rollouts=2)
    respond(model, first)
    first.before_update(model)
    state = load_tensors(dump_tensors(first.state_dict()), "checkpoint.zip", "state.pt")
    model.save(tmp_path / "model.zip")
    if reloaded:
        model = PPO.load(tmp_path / "model.zip")
    second.load_state_dict(state)
    second.after_update(model)
    assert model.lr_schedule(1.0) == pytest.approx(0.01)
    second.before_update(model)
    assert model.lr_schedule(1.0) == pytest.approx(0.02)
    second.after_update(model)
    assert model.lr_schedule(1.0) == pytest.approx(0.01)


def test_a_model_that_is_saved_while_its_learning_rate_is_raised_holds_the_usual_schedule(tmp_path: Path) -> None:
    """One of SB3's classes: readers of the file need not know ours."""
    model = PPO("MlpPolicy", "CartPole-v1", learning_rate=LinearSchedule(0.01, 0.0, 1.0), n_steps=16, batch_size=16)
    response = RaiseLearningRate()
    respond(model, response)
    response.before_update(model)
    model.save(tmp_path / "model.zip")
    loaded = load_checkpoint(tmp_path / "model.zip", make_vec_env("CartPole-v1", 1))
    assert [loaded.lr_schedule(remaining) for remaining in (1.0, 0.5)] == [0.01, 0.005]
    data, _, _ = load_from_zip_file(tmp_path / "model.zip")
    assert data is not None
    assert type(data["lr_schedule"]) is FloatSchedule
    assert data["lr_schedule"](0.5) == 0.005


def test_what_another_callback_has_set_meanwhile_stays() -> None:
    model, response = trained(), RaiseEntropy(bonus=0.3, rollouts=2)
    respond(model, response)
    response.before_update(model)
    model.ent_coef = 0.03
    response.after_update(model)
    assert model.ent_coef == 0.03
    response.before_update(model)
    assert model.ent_coef == pytest.approx(0.18)


@pytest.mark.parametrize("says_so", [True, False])
def test_what_lasts_is_restored(says_so: bool) -> None:
    """A model is saved between an update and the next rollout, where its bonus may still be the raised one."""
    model, first, second = trained(), RaiseEntropy(0.2, rollouts=2), RaiseEntropy(0.2, rollouts=2)
    respond(model, first)
    first.before_update(model)
    state = first.state_dict()
    if not says_so:  # as the first files did not
        del state["is_raised"]
    second.load_state_dict(state)
    second.after_update(model)
    assert model.ent_coef == 0.0
    second.before_update(model)
    assert model.ent_coef == pytest.approx(0.1)


def test_what_a_model_lacks_is_refused() -> None:
    model = A2C("MlpPolicy", "CartPole-v1")
    with pytest.raises(UserInputError, match="raise-noise needs noise in every parameter group, RMSprop"):
        RaiseNoise().check(model)
    RaiseEntropy().check(model)
    model.policy.action_net = th.nn.Sequential(model.policy.action_net)  # type: ignore[assignment]
    with pytest.raises(UserInputError, match=r"shrink-head needs .* not Sequential; remedy"):
        ShrinkHead().check(model)


def test_a_bonus_that_the_algorithm_would_not_use_is_refused() -> None:
    """SB3 gives TRPO the attribute and never reads it."""
    contrib = pytest.importorskip("sb3_contrib")

    class Mixin:
        """Takes no arguments."""

    class Mine(Mixin, PPO):
        def __init__(self, policy: str, env: str) -> None:
            super().__init__(policy, env, ent_coef=0.01)

    RaiseEntropy().check(Mine("MlpPolicy", "CartPole-v1"))
    RaiseEntropy().check(contrib.RecurrentPPO("MlpLstmPolicy", "CartPole-v1"))
    with pytest.raises(UserInputError, match="raise-entropy needs an entropy bonus, TRPO has none; remedy"):
        RaiseEntropy().check(contrib.TRPO("MlpPolicy", "CartPole-v1"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShrinkHead(1.0), r"keep=1.0 is no share in \[0, 1\)"),
        (lambda: ShrinkHead(-0.1), "keep=-0.1"),
        (lambda: RestartHead("actor"), "reset='actor'; remedy: one of head, all, none"),
        (lambda: RaiseEntropy(0.0), "bonus=0.0 is no positive number"),
        (lambda: RaiseEntropy(rollouts=0), "rollouts=0 is no positive whole number"),
        (lambda: RaiseNoise(1.0), "factor=1.0 raises nothing"),
        (lambda: RaiseLearningRate(0.5), "factor=0.5 raises nothing"),
    ],
)
def test_values_that_cannot_be_used(make: Any, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        make()
