"""
The zoo's experiment manager for algorithms whose hyperparameters are plain data.

Where a hyperparameter is a class, the zoo evaluates a string as Python: ``"dict(activation_fn=nn.ReLU)"``. Ours name
classes instead, as ``train --algo-kwargs`` does: ``{activation_fn: relu}``. Nothing in our file is ever executed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl_zoo3.exp_manager import ExperimentManager

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.algorithm import ACTIVATIONS, OPTIMIZERS

ALGO = "dppo"
HYPERPARAMS = Path(__file__).parent / "hyperparams" / f"{ALGO}.yml"
"""Hyperparameters of ``dppo`` where no ``--conf-file`` is given."""
_CLASSES: dict[str, Mapping[Any, type]] = {"activation_fn": ACTIVATIONS, "optimizer_class": OPTIMIZERS}


class NamedClassesManager(ExperimentManager):
    """
    The zoo's experiment manager. For ``dppo`` it reads :data:`HYPERPARAMS` by default, and ``policy_kwargs`` may name
    its classes; for every other algorithm it is the zoo's own.
    """

    def __init__(self, args: argparse.Namespace, algo: str, *positional: Any, **named: Any) -> None:
        super().__init__(args, algo, *positional, **named)  # thirty arguments, of which one matters here
        if algo == ALGO and named.get("config") is None:
            self.config = str(HYPERPARAMS)

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> Any:
        policy_kwargs = hyperparams.get("policy_kwargs")
        if self.algo == ALGO and isinstance(policy_kwargs, dict):
            hyperparams["policy_kwargs"] = classes_for_names(policy_kwargs)
        return super()._preprocess_hyperparams(hyperparams)


def classes_for_names(policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """
    :param policy_kwargs: arguments of a policy; not changed
    :return: the same, with the classes that ``activation_fn`` and ``optimizer_class`` name
    :raises UserInputError: a name that is not known
    """
    resolved = dict(policy_kwargs)
    for key, classes in _CLASSES.items():
        name = resolved.get(key)
        if isinstance(name, str):
            if name not in classes:
                raise UserInputError(f"policy_kwargs: {key} {name!r}; {did_you_mean(name, classes)}")
            resolved[key] = classes[name]
    return resolved
