from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_vgs_ppo.change import (
    ChangeCallback,
    RaiseEntropy,
    Response,
    RestartHead,
    RestartNetwork,
    SelfStartingChart,
    ShrinkHead,
    Surprise,
    Verdict,
)
from sb3_vgs_ppo.checkpoint import dump_tensors
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo import DistributionalPPO

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}, "seed": 3}


class AlarmAt(SelfStartingChart):
    """Raises an alarm at given rollouts, counted from 1."""

    def __init__(self, *rollouts: int) -> None:
        super().__init__()
        self.rollouts = rollouts
        self.n_seen = 0

    def observe(self, surprise: Surprise) -> Verdict:
        super().observe(surprise)
        self.n_seen += 1
        is_alarm = self.n_seen in self.rollouts
        return Verdict(1e-4 if is_alarm else 1.0, is_alarm)


class Diary(BaseCallback):
    """The entropy of the policy on a fixed state, at the end of every rollout and at the beginning of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []
        self.starts: list[float] = []

    def entropy(self) -> float:
        model: Any = self.model
        with th.no_grad():
            return model.policy.get_distribution(th.ones(1, 4)).entropy().item()

    def _on_rollout_start(self) -> None:
        self.starts.append(self.entropy())

    def _on_rollout_end(self) -> None:
        self.ends.append(self.entropy())

    def _on_step(self) -> bool:
        return True


def make(algorithm: type[Any] = PPO, **kwargs: Any) -> Any:
    kwargs = {**SMALL, **kwargs}
    if algorithm is A2C:
        kwargs = {name: value for name, value in kwargs.items() if name not in ("batch_size", "n_epochs")}
    return algorithm("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=0), **kwargs)


def parameters(model: Any) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


@pytest.mark.parametrize("algorithm", [PPO, DistributionalPPO])
def test_reporting_changes_nothing(algorithm: type[Any]) -> None:
    plain = make(algorithm).learn(160)
    callback = ChangeCallback(chart=AlarmAt(2))
    watched = make(algorithm).learn(160, callback=callback)
    assert th.equal(parameters(plain), parameters(watched))
    assert [(alarm.step, alarm.p_value, alarm.responses) for alarm in callback.alarms] == [(64, 1e-4, [])]


def test_the_response_comes_after_the_update_and_before_the_next_rollout() -> None:
    diary, callback = Diary(), ChangeCallback([RestartHead()], AlarmAt(3))
    make(learning_rate=0.05).learn(160, callback=[callback, diary])
    uniform = th.log(th.tensor(2.0)).item()
    assert [entropy == pytest.approx(uniform, abs=1e-3) for entropy in diary.ends] == [True, False, False, True, False]
    assert diary.starts == diary.ends  # what was restarted collects the next rollout


def test_an_alarm_in_the_last_rollout_leaves_the_agent_as_it_is() -> None:
    plain = make().learn(64)
    callback = ChangeCallback([RestartHead()], AlarmAt(2))
    alarmed = make().learn(64, callback=callback)
    assert th.equal(parameters(plain), parameters(alarmed))
    assert callback.state_dict()["is_pending"] is True


def test_alarms_are_logged_and_written(tmp_path: Path) -> None:
    model, file = make(A2C, n_steps=16), tmp_path / "changes.jsonl"
    callback = ChangeCallback([ShrinkHead(), RaiseEntropy()], AlarmAt(2, 4), file)
    model.learn(160, callback=callback)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["step"] for event in events] == [64, 128]
    assert events[0]["responses"] == ["shrink-head", "raise-entropy"]
    assert [event["shortfall"] for event in events] == [alarm.shortfall for alarm in callback.alarms]
    logged = model.logger.name_to_value
    assert (logged["change/alarms"], logged["change/p_value"]) == (2, 1.0)
    assert {"change/shortfall", "change/pit"} <= set(logged)


@pytest.mark.parametrize("seed", [None, 5])
def test_a_callback_that_was_saved_responds_as_the_old_one_would_have(seed: int | None) -> None:
    """Saved after the alarm and before its response; then both respond to the same model."""
    model = make(seed=seed)
    first = ChangeCallback([RestartHead(), RaiseEntropy()], AlarmAt(2))
    model.learn(64, callback=first)
    state = first.state_dict()
    dump_tensors(state)  # plain values only
    heads = []
    for callback in (first, ChangeCallback([RestartHead(), RaiseEntropy()], AlarmAt())):
        callback.load_state_dict(state)
        callback.init_callback(model)
        callback.on_rollout_start()
        heads.append(model.policy.action_net.weight.detach().clone())
        assert callback.state_dict()["responses"]["raise-entropy"] == {"left": 5, "usual": [], "is_raised": False}
        assert callback.alarms == first.alarms
    assert th.equal(*heads)
    assert heads[0].any()


def test_every_alarm_draws_another_head() -> None:
    heads: list[th.Tensor] = []

    class Keep(Response):
        name = "keep"

        def respond(self, model: Any, surprise: Surprise, generator: th.Generator) -> None:
            heads.append(model.policy.action_net.weight.detach().clone())

    make().learn(160, callback=ChangeCallback([RestartHead(), Keep()], AlarmAt(1, 3)))
    assert len(heads) == 2
    assert not th.equal(*heads)


def test_a_model_that_was_trained_has_its_usual_settings() -> None:
    """An alarm of the second of four rollouts raises the bonus in both updates that follow."""
    callback = ChangeCallback([RaiseEntropy()], AlarmAt(2))
    model = make(ent_coef=0.01).learn(128, callback=callback)
    assert model.ent_coef == 0.01
    assert callback.state_dict()["responses"]["raise-entropy"] == {"left": 3, "usual": [0.01], "is_raised": False}


def test_gsde_explores_with_the_restarted_noise() -> None:
    stds = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            policy: Any = self.model.policy
            stds.append((policy.action_dist.exploration_mat.std().item(), policy.log_std.exp().mean().item()))
            return True

    model = PPO("MlpPolicy", "Pendulum-v1", use_sde=True, **{**SMALL, "policy_kwargs": {"net_arch": [64]}})
    model.policy.log_std.data.fill_(3.0)
    model.learn(48, callback=[ChangeCallback([RestartHead()], AlarmAt(2)), Look()])
    drawn = [std / wanted for std, wanted in stds]
    assert drawn == pytest.approx([1.0] * 48, abs=0.5)  # of 64 numbers
    assert stds[0][1] > 10.0
    assert stds[-1][1] < 2.0


@pytest.mark.parametrize(
    ("algorithm", "policy"),
    [("RecurrentPPO", "MlpLstmPolicy"), ("TRPO", "MlpPolicy"), ("MaskablePPO", "MlpPolicy")],
)
@pytest.mark.parametrize("response", [RestartHead, RestartNetwork])
def test_on_policy_algorithms_of_sb3_contrib(algorithm: str, policy: str, response: type[Response]) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    env: Any = "CartPole-v1"
    if algorithm == "MaskablePPO":
        env = import_module("sb3_contrib.common.envs").InvalidActionEnvDiscrete(dim=4, n_invalid_actions=1)
    model = getattr(contrib, algorithm)(policy, env, n_steps=32, batch_size=16, learning_rate=0.01, seed=0)
    seen: list[float] = []

    class Look(BaseCallback):
        def _on_rollout_start(self) -> None:
            policy: Any = self.model.policy
            seen.append(policy.action_net.weight.norm(dim=1).max().item())

        def _on_step(self) -> bool:
            return True

    callback = ChangeCallback([response()], AlarmAt(2))
    model.learn(96, callback=[callback, Look()])
    assert [alarm.step for alarm in callback.alarms] == [64]
    assert seen[1] > 0.011 > seen[2] == pytest.approx(0.01)


def test_the_file_may_be_given_as_text(tmp_path: Path) -> None:
    make().learn(96, callback=ChangeCallback(chart=AlarmAt(2), file=str(tmp_path / "changes.jsonl")))
    assert len((tmp_path / "changes.jsonl").read_text().splitlines()) == 1


def test_two_responses_of_a_kind_are_refused() -> None:
    """What lasts of them is saved by their names."""
    with pytest.raises(UserInputError, match="responses raise-entropy, restart-head, raise-entropy: one is there tw"):
        ChangeCallback([RaiseEntropy(0.1), RestartHead(), RaiseEntropy(0.2, rollouts=9)])


def test_what_is_no_response_is_refused() -> None:
    with pytest.raises(UserInputError, match=r"RestartHead'>\] are not all of them; remedy: such as \[RestartHead"):
        ChangeCallback([RestartHead])  # type: ignore[list-item]


def test_an_algorithm_without_rollouts_is_refused() -> None:
    with pytest.raises(UserInputError, match="ChangeCallback needs the returns of whole rollouts, DQN has none"):
        DQN("MlpPolicy", "CartPole-v1").learn(10, callback=ChangeCallback())
