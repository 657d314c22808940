"""
Blueprints from zips of plain Stable-Baselines3 ``PPO``, with or without the VGS state of a legacy version.

Such a file keeps everything that is not plain JSON in pickles (``stable_baselines3.common.save_util.data_to_json``).
Beside each pickle stands what its value shows of itself as text, from which schedules and classes can be had without
executing anything; the spaces are the environment's. What else is missing is guessed, and the guesses are listed.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.save_util import json_to_data
from stable_baselines3.common.utils import LinearSchedule

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.checkpoint import Archive, Sb3Data, load_tensors, read_sb3_data
from sb3_vgs_ppo.checkpoint.classes import resolve_class
from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.checkpoint.json_text import Json, read_json_object
from sb3_vgs_ppo.checkpoint.manifest import MANIFEST
from sb3_vgs_ppo.checkpoint.sb3_zip import DATA, SYSTEM_INFO, PickledEntry, strip_class
from sb3_vgs_ppo.checkpoint.vgs_state import FIRST_VERSION
from sb3_vgs_ppo.errors import CheckpointError
from sb3_vgs_ppo.ppo.blueprint import ARGUMENTS, ATTRIBUTES, Blueprint, Overrides, Spaces
from sb3_vgs_ppo.ppo.dppo import DistributionalPPO
from sb3_vgs_ppo.ppo.policies import CnnPolicy, DistributionalActorCriticPolicy, MlpPolicy, MultiInputPolicy
from sb3_vgs_ppo.scaling.versions import measure_version

_STATE_DICT = ".pth"
_VARIABLES = "pytorch_variables.pth"  # tensors that are no state dict; PPO has none
_SB3_MEMBERS = {DATA, SYSTEM_INFO, _VARIABLES, "_stable_baselines3_version", MANIFEST}
_STORED_AS = {"stats_window_size": "_stats_window_size"}  # SB3 keeps this argument under another name
_POLICIES_OF_SB3 = "stable_baselines3.common.policies"
_TEXTS = ("value_head", "value_transform")  # arguments of a policy that are texts; SB3's own has none
_NUMBER = r"([-+.e\d]+)"
_CONSTANT = re.compile(rf"ConstantSchedule\(val={_NUMBER}\)")
_LINEAR = re.compile(rf"LinearSchedule\(start={_NUMBER}, end={_NUMBER}, end_fraction={_NUMBER}\)")
_TRUST = "trust_pickle=True (--trust-pickle) reads it, and runs whatever code the file holds"


def blueprint_from_sb3(
    archive: Archive, given_spaces: Spaces | None, overrides: Overrides, *, trust_pickle: bool
) -> Blueprint:
    """
    Describe SB3's agent as a :class:`DistributionalPPO`: scalar critic, SB3's optimizer, and VGS only if the file holds
    the state of a scaler. Such a model equals SB3's bit for bit.

    :param archive: zip without a manifest
    :param given_spaces: those of the caller's environment; required unless ``trust_pickle``
    :param overrides: what the caller says instead of the file
    :param trust_pickle: unpickle the description
    :return: the model's description
    :raises CheckpointError: not a PPO with one of SB3's policies or ours, damaged, or something needed is missing
    """
    file, states = archive.file, state_dicts(archive)
    with as_checkpoint_error(f"{file}: {DATA}"):
        values, guessed = _values(archive, states, trust_pickle=trust_pickle)
        module = values["policy_module"]
        if module not in (_POLICIES_OF_SB3, DistributionalActorCriticPolicy.__module__):
            raise CheckpointError(
                f"{file}: {DATA}: policy_class: of {module!r:.80}; only SB3's and ours can be converted"
            )
        arguments = {name: values[stored] for name in ARGUMENTS if (stored := _STORED_AS.get(name, name)) in values}
        policy_kwargs = _with_one_net_arch(values.get("policy_kwargs") or {})
        if module == _POLICIES_OF_SB3:
            policy_kwargs = {"value_head": "scalar", "optimizer_class": th.optim.Adam, **policy_kwargs}
            arguments["vgs_version"] = None
        if "vgs" in states:
            arguments["vgs_version"] = _vgs_version(states["vgs"], file)
        both = given_spaces or _unpickled_spaces(values, file)
        return Blueprint(
            file=file,
            member=DATA,
            policy_class=overrides.policy or _policy_class(both, states["policy"]),
            policy_kwargs={**policy_kwargs, **overrides.policy_kwargs},
            arguments={**arguments, **overrides.arguments},
            attributes={name: values[name] for name in ATTRIBUTES if name in values},
            spaces=both,
            states=states,
            extra=extra_members(archive),
            guessed={name: note for name, note in guessed.items() if name not in overrides.arguments},
        )


def state_dicts(archive: Archive) -> dict[str, StateDict]:
    """
    :param archive: zip that SB3's ``save`` wrote
    :return: state dicts by name
    :raises CheckpointError: that of the policy or of its optimizer is missing, or one is damaged
    """
    names = {name for name in archive.members if name.endswith(_STATE_DICT) and name != _VARIABLES}
    states = {}
    for name in sorted(names | {"policy.pth", "policy.optimizer.pth"}):
        state = load_tensors(archive[name], archive.file, name)
        if not isinstance(state, dict):
            raise CheckpointError(f"{archive.file}: {name}: a state dict expected, got {type(state).__name__}")
        states[name.removesuffix(_STATE_DICT)] = state
    return states


def extra_members(archive: Archive) -> dict[str, bytes]:
    """
    :param archive: zip that SB3's ``save`` wrote, maybe with more in it
    :return: the members that SB3 does not write
    """
    return {
        name: content
        for name, content in archive.members.items()
        if name not in _SB3_MEMBERS and not name.endswith(_STATE_DICT)
    }


def unpickle_data(content: bytes, names: Collection[str], file: str) -> dict[str, Any]:
    """
    Unpickle some of the values in SB3's ``data``. **This runs whatever code the file holds.**

    :param content: the member's content
    :param names: which values
    :param file: for messages
    :return: values by name; those that are plain JSON too
    :raises CheckpointError: one of them cannot be unpickled here
    """
    where = f"{file}: {DATA}"
    stored = read_json_object(content, where, strict=False)
    with as_checkpoint_error(where):
        values: dict[str, Any] = json_to_data(json.dumps({name: stored[name] for name in names if name in stored}))
    if lost := sorted((names & stored.keys()) - values.keys()):
        raise CheckpointError(f"{where}: {lost[0]}: cannot be unpickled here")
    return values


def _values(
    archive: Archive, states: dict[str, StateDict], *, trust_pickle: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """
    :return: attributes by name as Python values, and ``policy_module``, the module of the policy's class; and, by
        name, the arguments among them that are guesses
    """
    data = read_sb3_data(archive[DATA], archive.file)
    if not {"n_epochs", "clip_range"} <= data.values.keys() | data.pickled.keys():
        raise CheckpointError(f"{archive.file}: {DATA}: not a PPO; n_epochs and clip_range are missing")
    if trust_pickle:
        wanted = {*ARGUMENTS, "policy_class", "policy_kwargs", "observation_space", "action_space"}
        unpickled = unpickle_data(archive[DATA], wanted & data.pickled.keys(), archive.file)
        module = getattr(unpickled.get("policy_class"), "__module__", None)
        return {**data.values, **unpickled, "policy_module": module}, {}
    recovered, guessed = _recover(data, states, f"{archive.file}: {DATA}")
    policy_class = data.pickled.get("policy_class")
    module = policy_class and policy_class.shown.get("__module__")
    return {**data.values, **recovered, "policy_module": module}, guessed


def _unpickled_spaces(values: Mapping[str, Any], file: str) -> Spaces:
    observation, action = values.get("observation_space"), values.get("action_space")
    if not (isinstance(observation, spaces.Space) and isinstance(action, spaces.Space)):
        raise CheckpointError(
            f"{file}: {MANIFEST}: missing. Without it the spaces are known to unpicklers only; give the environment "
            f"(env=…, --env-id …), from which they can be had, or trust the file's author: {_TRUST}"
        )
    return Spaces(observation, action)


def _policy_class(both: Spaces, policy: StateDict) -> type[DistributionalActorCriticPolicy]:
    if isinstance(both.observation, spaces.Dict):
        return MultiInputPolicy
    return CnnPolicy if any(name.startswith("features_extractor.cnn.") for name in policy) else MlpPolicy


def _vgs_version(state: StateDict, file: str) -> str:
    found = state.get("vgs_version", FIRST_VERSION)
    version = measure_version(found) if isinstance(found, str) else None
    if version is None:
        raise CheckpointError(f"{file}: vgs.pth: vgs_version: {found!r:.80} is not known; a newer release may read it")
    return version


def _with_one_net_arch(policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """SB3 < 1.8 wrapped ``net_arch`` in a list, which its own ``load`` removes too."""
    match policy_kwargs:
        case {"net_arch": [dict(net_arch), *_]}:
            return {**policy_kwargs, "net_arch": net_arch}
    return policy_kwargs


def _recover(data: Sb3Data, states: dict[str, StateDict], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """
    Find out pickled arguments from what is shown of them.

    :return: arguments by name; and, by name, what was put in the place of those that are not shown
    """
    recovered: dict[str, Any] = {}
    guessed: dict[str, str] = {}
    if "policy_kwargs" in data.pickled:
        recovered["policy_kwargs"] = _policy_kwargs(data.pickled["policy_kwargs"].shown, where)
    defaults = inspect.signature(DistributionalPPO).parameters
    for name in data.pickled.keys() & set(ARGUMENTS):
        # Whatever learning_rate was, lr_schedule shows it as a schedule.
        entry = data.pickled["lr_schedule" if name == "learning_rate" and "lr_schedule" in data.pickled else name]
        if name == "rollout_buffer_class" and entry.shown.get("__module__") == "stable_baselines3.common.buffers":
            recovered[name] = None  # SB3 takes its own, which fits the observations
        elif (schedule := _schedule(entry)) is not None:
            recovered[name] = schedule
        elif name == "learning_rate" and (last := states["policy.optimizer"]["param_groups"][0]["lr"]):
            recovered[name] = last  # unless the schedule had ended at 0, where nothing is learned
            guessed[name] = f"{last!r:.80}, the optimizer's last, as a constant"
        else:
            recovered[name] = defaults[name].default
            guessed[name] = f"{recovered[name]!r:.80}, the default"
    return recovered, guessed


def _schedule(entry: PickledEntry) -> float | LinearSchedule | None:
    text = str(entry.shown.get("value_schedule"))
    if match := _CONSTANT.fullmatch(text):
        return float(match[1])
    if match := _LINEAR.fullmatch(text):
        return LinearSchedule(*map(float, match.groups()))
    return None


def _policy_kwargs(shown: Mapping[str, Json], where: str) -> dict[str, Any]:
    """Nothing is guessed here: with another activation or extractor, equal weights give other actions."""
    policy_kwargs: dict[str, Any] = {}
    for name, value in shown.items():
        policy_kwargs[name] = value
        if isinstance(value, str) and name not in _TEXTS:
            try:
                policy_kwargs[name] = resolve_class(strip_class(value), f"{where}: policy_kwargs.{name}", argument=name)
            except CheckpointError as error:
                raise CheckpointError(f"{error}; {_TRUST}") from error
    return policy_kwargs
