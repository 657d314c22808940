"""A callback that lets the critic of any SB3 on-policy algorithm notice a change of task, and responds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_vgs_ppo._alarms import Alarm, append_alarm
from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.change.chart import SelfStartingChart, Verdict
from sb3_vgs_ppo.change.responses import Response
from sb3_vgs_ppo.change.surprise import Surprise, rollout_surprise
from sb3_vgs_ppo.errors import UserInputError


class ChangeCallback(BaseCallback):
    """
    Tests after every rollout whether its returns have dropped below their prediction, and responds if so.

    The update that follows the rollout comes first, and then the response: the agent's last samples of its old policy
    still teach the critic what the returns have become, and no sample is weighted by the ratio of two policies of which
    one was restarted in between.

    Works with every algorithm that fills a ``RolloutBuffer``: PPO and A2C, and RecurrentPPO, TRPO and MaskablePPO of
    sb3-contrib. Rollouts should be long, as PPO's are: the few steps of A2C's are no evidence (docs/change.md). A
    scalar critic is the weaker case: it knows how many returns lie below its value, but not how many that would be if
    nothing had changed.

    Settings are raised from the end of a rollout to the beginning of the next. A callback that saves the model at the
    latter, or at the end of training, belongs behind this one in the list, one that changes the same settings at the
    end of a rollout before it. Where an update was interrupted, :meth:`after_update` gives the model its usual ones.

    :param responses: what to do, one of each kind; with none, changes are only reported
    :param chart: the test; one with its defaults if not given
    :param file: JSON lines to which every alarm is appended; none if not given
    :param verbose: 1: tell alarms to the model's logger, which prints what it is told if the model's ``verbose`` is 1
    :raises UserInputError: what is no response, or two of the same kind
    """

    def __init__(
        self,
        responses: Sequence[Response] = (),
        chart: SelfStartingChart | None = None,
        file: str | Path | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.responses: list[Response] = list(responses)
        if not all(isinstance(response, Response) for response in self.responses):
            raise UserInputError(f"responses {self.responses} are not all of them; remedy: such as [RestartHead()]")
        names = [response.name for response in self.responses]
        if len(names) != len(set(names)):
            raise UserInputError(f"responses {', '.join(names)}: one is there twice; remedy: one of each kind")
        self.chart: SelfStartingChart = chart or SelfStartingChart()
        self.file = None if file is None else Path(file)
        self.alarms: list[Alarm] = []
        self._is_pending = False
        self._seed: int | None = None

    def check(self, model: BaseAlgorithm) -> None:
        """
        :param model: what would be trained
        :raises UserInputError: it has no rollouts, or a response can do nothing about it
        """
        if not isinstance(model, OnPolicyAlgorithm):
            raise UserInputError(
                f"ChangeCallback needs the returns of whole rollouts, {type(model).__name__} has none; "
                "remedy: PPO, A2C or another on-policy algorithm"
            )
        for response in self.responses:
            response.check(model)

    def _init_callback(self) -> None:
        self.check(self.model)
        if self._seed is None:
            seed = self.model.seed
            self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed

    def _on_rollout_start(self) -> None:
        self.after_update()
        if self._is_pending:
            self._is_pending = False
            assert isinstance(self.model, OnPolicyAlgorithm)
            self._respond(self.model)

    def _on_training_end(self) -> None:
        self.after_update()

    def after_update(self) -> None:
        """
        Give raised settings their usual values, so that a model that is saved has them. The next rollout does so too,
        and so does the end of training; call it before a model is saved between an update and a rollout.
        """
        assert isinstance(self.model, OnPolicyAlgorithm)
        for response in self.responses:
            response.after_update(self.model)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model = self.model
        assert isinstance(model, OnPolicyAlgorithm)
        surprise = rollout_surprise(model.rollout_buffer, model.policy)
        verdict = self._judge(surprise)
        if verdict.alarm:
            names = [response.name for response in self.responses]
            self._report(Alarm(model.num_timesteps, *surprise, verdict.p_value, names))
        self.logger.record("change/shortfall", surprise.shortfall)
        self.logger.record("change/pit", surprise.pit)
        self.logger.record("change/p_value", verdict.p_value)
        self.logger.record("change/alarms", len(self.alarms))
        for response in self.responses:
            response.before_update(model)

    def _judge(self, surprise: Surprise) -> Verdict:
        """:return: whether the rollout that has just ended raises an alarm"""
        return self.chart.observe(surprise)

    def _report(self, alarm: Alarm) -> None:
        self.alarms.append(alarm)
        self._is_pending = True
        if self.file is not None:
            append_alarm(self.file, alarm)
        if self.verbose >= 1:
            self.logger.info(f"Step {alarm.step}: {self._reason(alarm)}")

    def _reason(self, alarm: Alarm) -> str:
        return f"returns fall short of their prediction by {alarm.shortfall:.3g}"

    def _respond(self, model: OnPolicyAlgorithm) -> None:
        alarm = self.alarms[-1]
        words = np.random.SeedSequence([self._seed or 0, alarm.step]).generate_state(1)
        generator = th.Generator().manual_seed(int(words[0]))  # of its own: exploration draws as it would without us
        for response in self.responses:
            response.respond(model, Surprise(alarm.shortfall, alarm.pit), generator)
        if model.use_sde:  # the rollout's noise was drawn before the callback was told of it
            model.policy.reset_noise(model.n_envs)

    def state_dict(self) -> StateDict:
        """:return: everything that a callback made in the same way needs to go on, between an update and a rollout"""
        return {
            "chart": self.chart.state_dict(),
            "alarms": [asdict(alarm) for alarm in self.alarms],
            "is_pending": self._is_pending,
            "seed": self._seed,
            "responses": {response.name: response.state_dict() for response in self.responses},
        }

    def load_state_dict(self, state: StateDict) -> None:
        """
        :param state: what :meth:`state_dict` returned, of a callback with the same responses
        """
        self.chart.load_state_dict(state["chart"])
        self.alarms = [Alarm(**alarm) for alarm in state["alarms"]]
        self._is_pending = state["is_pending"]
        self._seed = state["seed"]
        for response in self.responses:
            response.load_state_dict(state["responses"][response.name])
