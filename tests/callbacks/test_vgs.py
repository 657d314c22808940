"""VGS on the algorithms of SB3 and sb3-contrib as they are: what is scaled, logged, saved and refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import stable_baselines3
import torch as th
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import HumanOutputFormat, KVWriter, Logger

from sb3_vgs_ppo import load_checkpoint
from sb3_vgs_ppo.callbacks import VGSCallback
from sb3_vgs_ppo.errors import UserInputError, VGSMigrationWarning
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.scaling import attach, attachment_of

EARLY: dict[str, Any] = {"warmup_steps": 3, "alpha": 10.0}
"""Settings with which gradients are scaled from the fourth step on."""

ROLLOUTS: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2}
REPLAY: dict[str, Any] = {"learning_starts": 40, "batch_size": 8, "train_freq": 4, "buffer_size": 500}
POLICY, ACTOR_CRITIC = {"policy.optimizer": "vgs"}, {"actor.optimizer": "vgs_actor", "critic.optimizer": "vgs_critic"}


class Case(NamedTuple):
    """
    :param package: that has the algorithm
    :param optimizers: that are scaled, and the tag of each in the log
    """

    package: str
    env_id: str
    optimizers: dict[str, str]
    kwargs: dict[str, Any]
    policy: str = "MlpPolicy"


ALGORITHMS = {
    "PPO": Case("stable_baselines3", "CartPole-v1", POLICY, ROLLOUTS),
    "A2C": Case("stable_baselines3", "CartPole-v1", POLICY, {"n_steps": 8}),
    "DQN": Case("stable_baselines3", "CartPole-v1", POLICY, REPLAY),
    "SAC": Case("stable_baselines3", "Pendulum-v1", ACTOR_CRITIC, REPLAY),
    "TD3": Case("stable_baselines3", "Pendulum-v1", ACTOR_CRITIC, REPLAY),
    "TQC": Case("sb3_contrib", "Pendulum-v1", ACTOR_CRITIC, REPLAY),
    "QRDQN": Case("sb3_contrib", "CartPole-v1", POLICY, REPLAY),
    "RecurrentPPO": Case("sb3_contrib", "CartPole-v1", POLICY, ROLLOUTS, "MlpLstmPolicy"),
    "TRPO": Case("sb3_contrib", "CartPole-v1", POLICY, {"n_steps": 16, "batch_size": 16, "n_critic_updates": 2}),
}


def make(algorithm: str, **kwargs: Any) -> Any:
    case = ALGORITHMS[algorithm]
    policy_kwargs: dict[str, Any] = {"net_arch": [4], **kwargs.pop("policy_kwargs", {})}
    if algorithm == "RecurrentPPO":
        policy_kwargs["lstm_hidden_size"] = 4
    env = make_vec_env(case.env_id, seed=0)
    options = {**case.kwargs, "seed": 0, "device": "cpu", **kwargs, "policy_kwargs": policy_kwargs}
    return algorithm_class(algorithm)(case.policy, env, **options)


def algorithm_class(algorithm: str) -> Any:
    package = ALGORITHMS[algorithm].package
    return getattr(stable_baselines3 if package == "stable_baselines3" else pytest.importorskip(package), algorithm)


def optimizer_of(model: Any, name: str) -> Any:
    return getattr(model, name.removesuffix(".optimizer")).optimizer


def step_count(callback: VGSCallback, name: str = "policy.optimizer") -> int:
    return int(callback.attachments[name].vgs.state_dict()["step_count"])


def same_states(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def same(a: Any, b: Any) -> bool:
        return th.equal(a, b) if isinstance(a, th.Tensor) else bool(a == b)

    return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)


class Rows(KVWriter):
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.rows.append({name: value for name, value in key_values.items() if name.startswith("vgs")})


def log_to_rows(model: BaseAlgorithm) -> list[dict[str, Any]]:
    """:return: the list that what the model logs will be in; SB3's table is written too, which refuses equal keys"""
    rows = Rows()
    model.set_logger(Logger(None, [rows, HumanOutputFormat(io.StringIO())]))
    return rows.rows


class Spy:
    """Notes the gradient and the factor of each step of an optimizer; the gradient as it is where this is hooked in."""

    def __init__(self, optimizer: th.optim.Optimizer) -> None:
        self.gradients: list[th.Tensor] = []
        self.factors: list[float] = []
        optimizer.register_step_pre_hook(self._note)

    def _note(self, optimizer: th.optim.Optimizer, *_: object) -> None:
        attached = attachment_of(optimizer)
        self.factors.append(1.0 if attached is None else attached.vgs.get_scaling_factor())
        parameters = optimizer.param_groups[0]["params"]
        self.gradients.append(
            th.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
        )


def weights(optimizer: th.optim.Optimizer) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(optimizer.param_groups[0]["params"]).detach().clone()


class At(BaseCallback):
    """Calls a function in one step of the environment."""

    def __init__(self, step: int, call: Any) -> None:
        super().__init__()
        self.step, self.call = step, call

    def _on_step(self) -> bool:
        if self.n_calls == self.step:
            self.call(self.model)
        return True


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_step_of_every_network_is_scaled_and_logged(algorithm: str) -> None:
    model, optimizers = make(algorithm), ALGORITHMS[algorithm].optimizers
    spies = {name: Spy(optimizer_of(model, name)) for name in optimizers}
    rows, callback = log_to_rows(model), VGSCallback(vgs_kwargs=EARLY)
    model.learn(208, callback, log_interval=1)
    assert callback.attachments.keys() == optimizers.keys()
    for name, tag in optimizers.items():
        n_steps = len(spies[name].factors)
        assert n_steps >= 10
        assert step_count(callback, name) == n_steps
        assert spies[name].factors[:3] == [1.0, 1.0, 1.0]
        assert max(spies[name].factors[3:]) < 1.0
        assert rows[-1][f"{tag}/scaling_factor"] < 1.0
        assert 0 < rows[-1][f"{tag}/step_count"] <= n_steps
        assert model.logger.name_to_value[f"{tag}/step_count"] == n_steps
        assert attachment_of(optimizer_of(model, name)) is None
    keys = set().union(*rows)
    assert {key.split("/")[0] for key in keys} == set(optimizers.values())
    assert max(map(len, keys)) <= 36  # SB3's table would cut longer ones


@pytest.mark.parametrize("algorithm", ["PPO", "TD3"])
@pytest.mark.parametrize("options", [{}, {"granularity": "global", "apply_to": "update"}])
def test_with_sgd_parameters_move_by_the_factor(algorithm: str, options: dict[str, Any]) -> None:
    clipping = {"max_grad_norm": float("inf")} if algorithm == "PPO" else {}
    model = make(algorithm, learning_rate=1e-2, policy_kwargs={"optimizer_class": th.optim.SGD}, **clipping)
    name = [*ALGORITHMS[algorithm].optimizers][-1]
    optimizer = optimizer_of(model, name)
    spy, before = Spy(optimizer), weights(optimizer)
    callback = VGSCallback("4.0" if options else "3.0", {**EARLY, "min_scaling_factor": 0.01, **options})
    model.learn(160, callback)
    moves = [-1e-2 * factor * gradient for factor, gradient in zip(spy.factors, spy.gradients, strict=True)]
    assert min(spy.factors) < 0.5
    assert th.allclose(weights(optimizer) - before, th.stack(moves).sum(0), rtol=1e-3, atol=1e-6)


def test_rows_hold_the_average_since_the_last_one() -> None:
    model = make("A2C")
    rows, spy = log_to_rows(model), Spy(model.policy.optimizer)
    model.learn(64, VGSCallback(vgs_kwargs=EARLY), log_interval=3)
    # SB3 writes a row before the update of its rollout: the sixth row cannot know of the sixth update
    assert [row["vgs/step_count"] for row in rows] == [2, 5]
    assert rows[1]["vgs/scaling_factor"] == pytest.approx(np.mean(spy.factors[2:5]))
    assert len(set(spy.factors[2:5])) == 3


def test_algorithms_that_clip_show_the_clipped_gradient() -> None:
    norms = []
    for max_grad_norm in (0.01, float("inf")):
        model = make("PPO", max_grad_norm=max_grad_norm)
        model.learn(32, VGSCallback())
        norms.append(model.logger.name_to_value["vgs/grad_norm_raw"])
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert norms[1] > 0.02


@pytest.mark.parametrize("algorithm", ["PPO", "SAC", "QRDQN", "RecurrentPPO"])
@pytest.mark.parametrize("options", [{}, {"granularity": "element", "apply_to": "update"}])
def test_scalers_are_saved_and_loaded_with_the_model(algorithm: str, options: dict[str, Any], tmp_path: Path) -> None:
    model, file = make(algorithm), tmp_path / "model.zip"
    version = "4.0" if options else "3.0"
    trained = VGSCallback(version, {**EARLY, **options})
    model.learn(128, trained)
    model.save(file)

    loaded = algorithm_class(algorithm).load(file, env=model.get_env())
    again, found, spies = VGSCallback(), {}, {}

    def note(_: BaseAlgorithm) -> None:
        for name, attachment in again.attachments.items():
            found[name] = attachment.vgs.state_dict()
            assert attachment.vgs.get_scaling_factor() == trained.attachments[name].vgs.get_scaling_factor()
            spies[name] = Spy(attachment.optimizer)

    loaded.learn(64, [again, At(1, note)])
    for name, attachment in trained.attachments.items():
        assert same_states(found[name], attachment.vgs.state_dict())
        assert spies[name].factors[0] == attachment.vgs.get_scaling_factor() < 1.0
        assert step_count(again, name) == step_count(trained, name) + len(spies[name].factors)


@pytest.mark.parametrize("version", ["2.0", "3.0", "4.0"])
def test_an_update_after_loading_is_that_without(version: str, tmp_path: Path) -> None:
    model = make("PPO")
    model.learn(64, VGSCallback(version, EARLY))
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip")
    loaded.rollout_buffer = model.rollout_buffer
    states = []
    for agent in (model, loaded):
        agent.set_logger(Logger(None, []))
        np.random.seed(0)  # noqa: NPY002 - shuffles SB3's minibatches
        with attach(agent.policy.optimizer) as attached:
            agent.train()
        states.append(attached.vgs.state_dict())
    assert th.equal(weights(model.policy.optimizer), weights(loaded.policy.optimizer))
    assert same_states(*states)
    assert states[0]["step_count"] == 10


def test_a_model_that_is_saved_while_it_learns_has_them_too(tmp_path: Path) -> None:
    model = make("PPO")
    model.learn(64, [VGSCallback(vgs_kwargs=EARLY), At(50, lambda model: model.save(tmp_path / "model.zip"))])
    loaded = PPO.load(tmp_path / "model.zip")
    assert loaded.policy.optimizer.param_groups[0]["vgs"]["step_count"] == 6


def test_training_goes_on_in_further_calls_of_learn() -> None:
    model, callback = make("PPO"), VGSCallback(vgs_kwargs=EARLY)
    for n_steps in (2, 4):
        model.learn(16, callback)
        assert step_count(callback) == n_steps
    model.learn(16)  # without the callback nothing is scaled or observed
    with pytest.warns(VGSMigrationWarning, match="VGS state of version 3.0"):
        model.learn(16, VGSCallback("4.0"))
    assert model.policy.optimizer.param_groups[0]["vgs"]["step_count"] == 2


def test_after_an_interrupted_call_the_next_goes_on() -> None:
    def interrupt(_: BaseAlgorithm) -> None:
        raise KeyboardInterrupt

    model, interrupted, again = make("PPO"), VGSCallback(vgs_kwargs=EARLY), VGSCallback()
    with pytest.raises(KeyboardInterrupt):
        model.learn(64, [interrupted, At(40, interrupt)])
    assert step_count(interrupted) == 4
    model.learn(32, again)
    assert step_count(again) == 8
    assert attachment_of(model.policy.optimizer) is None


def test_parts_can_have_scalers_of_their_own() -> None:
    model = make("SAC")
    rows = log_to_rows(model)
    actor = VGSCallback("4.0", {"alpha": 0.5}, optimizers=["actor.optimizer"])
    critic = VGSCallback("3.0", {"alpha": 0.1}, optimizers="critic.optimizer")
    model.learn(208, [actor, critic], log_interval=1)
    assert {key.split("/")[0] for key in rows[-1]} == {"vgs_actor", "vgs_critic"}
    (of_actor,), (of_critic,) = actor.attachments.values(), critic.attachments.values()
    assert (of_actor.vgs.version, of_critic.vgs.settings.alpha) == ("4.0", 0.1)
    assert "vgs" not in model.ent_coef_optimizer.param_groups[0]
    model.learn(4, VGSCallback(optimizers=["ent_coef_optimizer"]))
    assert "vgs" in model.ent_coef_optimizer.param_groups[0]
    assert "vgs_ent_coef/step_count" in model.logger.name_to_value


def test_distributional_ppo_without_its_own_scaler(tmp_path: Path) -> None:
    model = DistributionalPPO("MlpPolicy", make_vec_env("CartPole-v1"), vgs_version=None, seed=0, **ROLLOUTS)
    callback = VGSCallback(vgs_kwargs=EARLY)
    model.learn(32, callback)
    model.save(tmp_path / "model.zip")
    loaded = load_checkpoint(tmp_path / "model.zip", model.get_env())
    again = VGSCallback()
    loaded.learn(32, again)
    assert (step_count(callback), step_count(again)) == (4, 8)
    assert again.attachments["policy.optimizer"].vgs.settings.alpha == 10.0


def test_a_second_scaler_is_refused() -> None:
    owner = DistributionalPPO("MlpPolicy", make_vec_env("CartPole-v1"), **ROLLOUTS)
    with pytest.raises(UserInputError, match=r"DistributionalPPO has a scaler already .* remedy: vgs_version=None"):
        owner.learn(16, VGSCallback())
    with pytest.raises(UserInputError, match="scaled twice"):
        make("PPO").learn(16, [VGSCallback(), VGSCallback("4.0")])


@pytest.mark.parametrize(
    ("algorithm", "kwargs", "message"),
    [
        (SAC, {"optimizers": ["critics.optimizer"]}, "SAC has no optimizer 'critics.optimizer'; remedy: one of actor"),
        (A2C, {"optimizers": []}, "A2C has no optimizer of a network; remedy: one of policy.optimizer"),
        (A2C, {"optimizers": ["policy"]}, "A2C has no optimizer 'policy'"),
        (A2C, {"version": "5.0"}, "version '5.0' is not known"),
        (A2C, {"vgs_kwargs": {"aplha": 1.0}}, "aplha.*alpha"),
    ],
)
def test_arguments_are_refused_before_training(algorithm: type[Any], kwargs: dict[str, Any], message: str) -> None:
    model = make(algorithm.__name__)
    with pytest.raises(UserInputError, match=message):
        model.learn(16, VGSCallback(**kwargs))
    assert model.num_timesteps == 0


def test_an_algorithm_without_gradients_is_refused() -> None:
    contrib = pytest.importorskip("sb3_contrib")
    model = contrib.ARS("LinearPolicy", make_vec_env("CartPole-v1"), n_delta=1)
    with pytest.raises(UserInputError, match="ARS has no optimizer of a network; remedy: an algorithm that learns"):
        model.learn(16, VGSCallback())
