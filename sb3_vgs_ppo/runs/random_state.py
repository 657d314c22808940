"""The random generators that a whole process shares."""

from __future__ import annotations

import random

import numpy as np
import torch as th

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.runs.plain_values import from_plain, to_plain


def random_state(device: th.device) -> StateDict:
    """
    :param device: where the model computes
    :return: states of the generators of Python, NumPy and torch, and of the device's own
    """
    state: StateDict = {
        "python": random.getstate(),
        "numpy": to_plain(np.random.get_state()),  # noqa: NPY002 - what other people's code draws from
        "torch": th.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = th.cuda.get_rng_state(device)
    return state


def load_random_state(state: StateDict, device: th.device) -> None:
    """
    :param state: as :func:`random_state` returned it
    :param device: where the model computes; a state of another kind of device is left out
    """
    random.setstate(state["python"])
    np.random.set_state(from_plain(state["numpy"]))  # noqa: NPY002
    th.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        th.cuda.set_rng_state(state["cuda"], device)
