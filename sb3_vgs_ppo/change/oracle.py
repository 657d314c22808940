"""What an agent would do that is told of every change: the yardstick of comparisons, not a method."""

from __future__ import annotations

from sb3_vgs_ppo._alarms import Alarm
from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.change.callback import ChangeCallback
from sb3_vgs_ppo.change.chart import Verdict
from sb3_vgs_ppo.change.surprise import Surprise
from sb3_vgs_ppo.errors import UserInputError

PHASE = "phase"
"""Attribute under which a continual environment numbers its tasks."""


class OracleCallback(ChangeCallback):
    """
    Responds after every rollout in which the environment's phase has changed, and to nothing else. The test is made
    and logged as in :class:`ChangeCallback`, without consequences. Parameters as there.
    """

    _phase: int | None = None

    def _init_callback(self) -> None:
        super()._init_callback()
        if not self.training_env.has_attr(PHASE):
            raise UserInputError(
                f"told: the environment has no attribute {PHASE!r}; remedy: an environment that has phases, such as "
                "ContinualCartPole-v0, or an agent that is not told of changes"
            )
        if self._phase is None:
            self._phase = self._read_phase()

    def _read_phase(self) -> int:
        phases: list[int] = self.training_env.get_attr(PHASE)
        return max(phases)

    def _judge(self, surprise: Surprise) -> Verdict:
        previous, self._phase = self._phase, self._read_phase()
        return Verdict(super()._judge(surprise).p_value, self._phase != previous)

    def _reason(self, alarm: Alarm) -> str:
        return f"told of phase {self._phase}"

    def state_dict(self) -> StateDict:
        return {**super().state_dict(), PHASE: self._phase}

    def load_state_dict(self, state: StateDict) -> None:
        super().load_state_dict(state)
        self._phase = state[PHASE]
