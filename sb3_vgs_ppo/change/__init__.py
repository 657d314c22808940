"""The critic notices a change of task by itself, and the agent responds as gently as the evidence asks for."""

from __future__ import annotations

from sb3_vgs_ppo._alarms import Alarm
from sb3_vgs_ppo.change.callback import ChangeCallback
from sb3_vgs_ppo.change.chart import SelfStartingChart, Verdict
from sb3_vgs_ppo.change.options import RESPONSES, make_change_callback
from sb3_vgs_ppo.change.oracle import OracleCallback
from sb3_vgs_ppo.change.responses import (
    RaiseEntropy,
    RaiseLearningRate,
    RaiseNoise,
    ResetOptimizer,
    Response,
    RestartHead,
    RestartNetwork,
    ShrinkHead,
    forget,
)
from sb3_vgs_ppo.change.surprise import Surprise, rollout_surprise

__all__ = [
    "RESPONSES",
    "Alarm",
    "ChangeCallback",
    "OracleCallback",
    "RaiseEntropy",
    "RaiseLearningRate",
    "RaiseNoise",
    "ResetOptimizer",
    "Response",
    "RestartHead",
    "RestartNetwork",
    "SelfStartingChart",
    "ShrinkHead",
    "Surprise",
    "Verdict",
    "forget",
    "make_change_callback",
    "rollout_surprise",
]
