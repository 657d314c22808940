"""A sequential test of whether returns have dropped below their prediction: a self-starting control chart.

Each rollout's shortfall is compared with those before it by Student's prediction interval for one further observation
(Hawkins 1987, "Self-starting CUSUM charts for location and scale"; Quesenberry 1991, "SPC Q charts for start-up
processes"). It is a Shewhart chart, which looks at one rollout at a time, and not a CUSUM or a product of e-values,
which add evidence up: a critic follows its returns within a few rollouts, so there is little to add up.
"""

from __future__ import annotations

import math
from collections import deque
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.change.surprise import Surprise
from sb3_vgs_ppo.errors import UserInputError


class Verdict(NamedTuple):
    """
    :param p_value: probability of a shortfall as large or larger if nothing has changed; 1 where there is no evidence
    :param alarm: whether a change is reported now
    """

    p_value: float
    alarm: bool


class SelfStartingChart:
    """
    Raises an alarm when a rollout's returns fall short of the prediction by more than those before it did.

    Two conditions, so that an alarm needs both and neither can make it more frequent:

    - the shortfall is above the (1 − α)-quantile of Student's predictive distribution given the last ``window`` ones;
    - more than half of the prediction is missed: the mean probability integral transform is below ½.

    *False alarms.* While shortfalls are independent and normal with one mean and one variance, each rollout raises the
    first false alarm with probability ``alpha`` at most: after 1 / α rollouts on average. A learning curve makes it
    rarer. Autocorrelation and heavy tails make false alarms more frequent, and so does an earlier one if ``alpha`` is
    above 0.01; docs/change.md says how much.

    *After an alarm* the rest of the drop belongs to the same change: until returns are no longer below the prediction,
    nothing is reported and nothing enters the history. If that takes more than ``min_history`` rollouts, a new history
    begins. The alarm itself enters it as the limit that it crossed: as it is, one change would hide the next; left out,
    false alarms would make further ones more likely.

    :param alpha: probability of a false alarm per rollout, in (0, 0.5)
    :param window: rollouts in the history. Long enough to remember how far critic and returns were apart while the
        agent learned: where it has nothing left to learn, shortfalls hardly vary, and after a short memory every slip
        of a good agent is a change
    :param min_history: rollouts before the first that can raise an alarm, in [2, window]
    :raises UserInputError: a value out of range
    """

    alpha: float
    min_history: int
    _history: deque[float]
    _settling: int

    def __init__(self, alpha: float = 1e-3, window: int = 500, min_history: int = 8) -> None:
        if not (isinstance(alpha, Real) and 0.0 < alpha < 0.5):
            raise UserInputError(f"alpha={alpha!r} is no number between 0 and 0.5; remedy: 0.001 is usual")
        if not all(isinstance(number, Integral) for number in (window, min_history)) or not 2 <= min_history <= window:
            raise UserInputError(
                f"min_history={min_history!r}, window={window!r}; remedy: whole numbers with 2 <= min_history <= window"
            )
        self.alpha = alpha
        self.min_history = min_history
        self._history = deque(maxlen=window)
        self._settling = 0

    def observe(self, surprise: Surprise) -> Verdict:
        """
        Judge the next rollout, then remember it. One that is not finite is passed over.

        :param surprise: of the rollout
        """
        shortfall, pit = surprise
        if not math.isfinite(shortfall):
            return Verdict(1.0, alarm=False)
        is_below = pit < 0.5 and shortfall > 0.0
        if self._settling and is_below:
            self._settling -= 1
            if not self._settling:
                self._history.clear()
            return Verdict(1.0, alarm=False)
        self._settling = 0
        verdict = Verdict(1.0, alarm=False)
        if is_below and len(self._history) >= self.min_history:
            n, history = len(self._history), np.array(self._history)
            # One further observation differs from the mean of n others by sd · √(1 + 1 / n)
            center, spread = float(history.mean()), float(history.std(ddof=1)) * math.sqrt(1.0 + 1.0 / n)
            if spread > 0.0:  # else nothing has ever varied, which is no measure
                p_value = float(stdtr(n - 1, (center - shortfall) / spread))
                verdict = Verdict(p_value, p_value <= self.alpha)
            if verdict.alarm:
                self._settling = self.min_history
                shortfall = center - spread * float(stdtrit(n - 1, self.alpha))
        self._history.append(shortfall)
        return verdict

    def state_dict(self) -> StateDict:
        """:return: what the chart remembers, without its settings"""
        return {"history": list(self._history), "settling": self._settling}

    def load_state_dict(self, state: StateDict) -> None:
        """:param state: what :meth:`state_dict` returned; of a longer history the newest part is kept"""
        self._history = deque(state["history"], maxlen=self._history.maxlen)
        self._settling = state["settling"]
