"""
Classes by dotted name, for the arguments of a model that are classes: policy, activation, optimizer, …

A checkpoint's text decides which class is called when a model is built, so a name is resolved only if nothing but a
harmless class can come out: the module lies under :data:`PREFIXES`, no part of the name starts with an underscore (no
``__main__``, which would run), the class was defined in just that module (no names that a module merely imported, such
as ``stable_baselines3.common.utils.os``), and it derives from a base that such an argument needs.
"""

from __future__ import annotations

from importlib import import_module

from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.optim import Optimizer

from sb3_vgs_ppo.errors import CheckpointError

PREFIXES = ("torch.nn.modules", "torch.optim", "stable_baselines3", "sb3_contrib", "sb3_vgs_ppo")
BASES: tuple[type, ...] = (nn.Module, Optimizer, BaseBuffer)
EXPECTED_BASES: dict[str, type] = {
    "policy_class": BasePolicy,
    "activation_fn": nn.Module,
    "features_extractor_class": BaseFeaturesExtractor,
    "optimizer_class": Optimizer,
    "rollout_buffer_class": BaseBuffer,
}
"""What SB3 takes under these names."""


def class_name(cls: type) -> str:
    """
    :param cls: any class
    :return: its dotted name
    """
    return f"{cls.__module__}.{cls.__qualname__}"


def is_allowed(cls: type) -> bool:
    """
    :param cls: any class
    :return: whether :func:`resolve_class` would return it for its name
    """
    try:
        return resolve_class(class_name(cls), "class") is cls
    except CheckpointError:
        return False


def resolve_class(name: str, where: str, argument: str = "") -> type:
    """
    Find a class of SB3, torch or this package.

    :param name: dotted name, as :func:`class_name` returns it
    :param where: file, member and field, for messages
    :param argument: name of the argument that the class is for; decides the base in :data:`EXPECTED_BASES`
    :return: the class
    :raises CheckpointError: see the module's docstring
    """
    module_name, _, attribute = name.rpartition(".")
    parts = name.split(".")
    is_known_module = any(f"{module_name}.".startswith(f"{prefix}.") for prefix in PREFIXES)
    if not is_known_module or not all(part.isidentifier() and not part.startswith("_") for part in parts):
        raise CheckpointError(f"{where}: {name!r:.200} is not a class of {', '.join(PREFIXES)}")
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever importing raises, e.g. a missing optional package
        raise CheckpointError(f"{where}: cannot import {module_name} for {name!r}: {error}") from error
    # Not getattr, which would ask a module's __getattr__ hook.
    cls = vars(module).get(attribute)
    if not isinstance(cls, type) or class_name(cls) != name:
        raise CheckpointError(f"{where}: {module_name} defines no class {attribute!r}")
    expected = EXPECTED_BASES.get(argument, BASES)
    if not issubclass(cls, expected):
        wanted = expected if isinstance(expected, tuple) else (expected,)
        raise CheckpointError(f"{where}: {name} does not derive from {' or '.join(base.__name__ for base in wanted)}")
    return cls
