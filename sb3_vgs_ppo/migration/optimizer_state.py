"""An optimizer's state for another head or another optimizer. Pure functions on state dicts."""

from __future__ import annotations

from typing import Any

import torch as th

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.optim import AdaptiveUPGD

_MOMENTS = ("exp_avg", "exp_avg_sq")


def forget_last(state: StateDict, n_tensors: int) -> StateDict:
    """
    :param state: state dict of an optimizer; not changed
    :param n_tensors: number of tensors, counted from the last, that have become others
    :return: the same without what it holds of these, which an optimizer starts afresh at its next step
    """
    keys = [key for group in state["param_groups"] for key in group["params"]][-n_tensors:]
    return {**state, "state": {key: entry for key, entry in state["state"].items() if key not in keys}}


def has_moments(state: StateDict) -> bool:
    """
    :param state: state dict of an optimizer
    :return: whether it holds Adam's moments, or nothing yet
    """
    return all({"step", *_MOMENTS} <= entry.keys() for entry in state["state"].values())


def convert_optimizer(state: StateDict, target: type[th.optim.Optimizer]) -> StateDict:
    """
    Carry Adam's moments over to an optimizer that has them too.

    The average utility of AdaptiveUPGD starts at 0 while ``step`` goes on. Its bias correction then undervalues all
    utilities by one factor, which the gate, a function of where a utility lies between the smallest and the largest,
    does not see. (Those of a head that starts afresh count in full meanwhile, about 1 / (1 − β_u) steps.)

    :param state: state dict of Adam, AdamW or AdaptiveUPGD; not changed
    :param target: ``torch.optim.Adam`` or :class:`AdaptiveUPGD`
    :return: state dict of ``target`` with the source's learning rate, betas and eps. Its moments are the source's very
        tensors; there are none if the source, another optimizer, has none
    """
    groups = [_group(group, target) for group in state["param_groups"]]
    if not has_moments(state):
        return {"state": {}, "param_groups": groups}
    return {"state": {key: _entry(entry, target) for key, entry in state["state"].items()}, "param_groups": groups}


def shared_options(state: StateDict) -> dict[str, Any]:
    """
    :param state: state dict of an optimizer
    :return: its betas and eps, those that it has
    """
    group = state["param_groups"][0]
    return {"betas": tuple(group["betas"]), "eps": group["eps"]} if {"betas", "eps"} <= group.keys() else {}


def weight_decays(state: StateDict, converted: StateDict) -> tuple[float, float]:
    """
    :param state: state dict of an optimizer
    :param converted: the same for another one, whose weight decay is its default: what it multiplies differs
    :return: the weight decay of each, 0 where it has none
    """
    old, new = (float(each["param_groups"][0].get("weight_decay", 0.0)) for each in (state, converted))
    return old, new


def _group(group: dict[str, Any], target: type[th.optim.Optimizer]) -> dict[str, Any]:
    options = shared_options({"param_groups": [group]})
    fresh = target([th.zeros(1)], lr=group["lr"], **options)  # type: ignore[call-arg]
    return {**fresh.state_dict()["param_groups"][0], "params": group["params"]}


def _entry(entry: dict[str, Any], target: type[th.optim.Optimizer]) -> dict[str, Any]:
    moments = {name: entry[name] for name in _MOMENTS}
    if target is AdaptiveUPGD:
        return {"step": int(entry["step"]), "avg_utility": th.zeros_like(moments["exp_avg"]), **moments}
    return {"step": th.tensor(float(entry["step"])), **moments}
