"""From a file of an older version, or of plain Stable-Baselines3, to a checkpoint of this one. Nothing is unpickled."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th

from sb3_vgs_ppo._files import atomic_write
from sb3_vgs_ppo._types import ValueHeadName
from sb3_vgs_ppo.checkpoint import (
    MANIFEST,
    Archive,
    dump_tensors,
    load_tensors,
    read_archive,
    read_vgs_state,
)
from sb3_vgs_ppo.checkpoint.archive import load_path
from sb3_vgs_ppo.checkpoint.summary import Kind
from sb3_vgs_ppo.checkpoint.tensors import is_torch_file
from sb3_vgs_ppo.checkpoint.vgs_state import FIRST_VERSION, VGS_MEMBER
from sb3_vgs_ppo.errors import UserInputError, VGSMigrationWarning
from sb3_vgs_ppo.migration.report import MigrationReport, Notes
from sb3_vgs_ppo.migration.steps import (
    OptimizerName,
    Step,
    change_optimizer,
    change_value_head,
    change_vgs_version,
    migrate_vgs_state,
)
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.ppo.blueprint import Blueprint, Spaces
from sb3_vgs_ppo.ppo.checks import located
from sb3_vgs_ppo.ppo.loading import build_model, read_blueprint
from sb3_vgs_ppo.scaling import KNOWN_VERSIONS


def migrate_checkpoint(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    to_version: str = "3.0",
    env_id: str | None = None,
    value_head: ValueHeadName | None = None,
    optimizer: OptimizerName | None = None,
    trust_pickle: bool = False,
    force: bool = False,
) -> MigrationReport:
    """
    Write what is in a file as a checkpoint of this version. The source is never changed.

    Understood are checkpoints of this package, zips of plain SB3 ``PPO``, such zips with the VGS state of a legacy
    version, and bare VGS states, which become bare VGS states. The policy's actions stay what they are, and so does the
    value that it predicts. One :class:`VGSMigrationWarning` is issued where the scaler changes its measure. All pickles
    in the target are written anew, so that none comes from the source, unless ``trust_pickle`` asks for it.

    :param src: file to read
    :param dst: file to write, atomically; ``.zip`` is appended where there is no suffix
    :param to_version: VGS version of the target. A checkpoint whose VGS is off stays so; plain SB3 gets a scaler
    :param env_id: environment from which the spaces are taken where the source has no manifest, ``module:Name-v0`` too;
        for a source with one they must be the same
    :param value_head: kind of critic of the target, by default the source's (``"scalar"`` for plain SB3). ``"scalar"``
        and ``"quantile"`` can be made from each other
    :param optimizer: ``"adam"`` or ``"adaptive-upgd"``, by default the source's (mostly Adam for plain SB3). Adam's
        moments are carried over
    :param trust_pickle: unpickle what only pickle could store. **This runs whatever code the source holds**
    :param force: replace an existing target
    :return: what was kept, converted and reset, and what is left to do
    :raises UserInputError: an argument cannot be used, or the target is the source, a folder, or exists already
    :raises CheckpointError: the source cannot be understood, or is refused as unsafe
    :raises OSError: a file cannot be read or written; an existing target is unchanged
    """
    if to_version not in KNOWN_VERSIONS:
        raise UserInputError(f"to_version={to_version!r} is not known; remedy: {', '.join(KNOWN_VERSIONS)}")
    source = load_path(src)
    archive = read_archive(source)
    if is_torch_file(list(archive.members)):
        target = _checked_target(dst, source, force=force)
        _refuse_for_bare_states(source, env_id=env_id, value_head=value_head, optimizer=optimizer)
        report = _migrate_bare_state(source, target, to_version)
    else:
        path = Path(dst)
        target = _checked_target(path if path.suffix else f"{path}.zip", source, force=force)
        steps = [] if value_head is None else [change_value_head(value_head)]
        steps += [] if optimizer is None else [change_optimizer(optimizer)]
        steps.append(change_vgs_version(to_version, switch_on=MANIFEST not in archive.members))
        spaces = None if env_id is None else _spaces_of(env_id)
        blueprint = read_blueprint(archive, spaces, trust_pickle=trust_pickle)
        report = _migrate_model(blueprint, target, steps, _kind(archive))
    for message in report.warnings:
        warnings.warn(message, VGSMigrationWarning, stacklevel=2)
    return report


def _migrate_bare_state(source: Path, target: Path, to_version: str) -> MigrationReport:
    state = read_vgs_state(source.read_bytes(), str(source), "VGS state")
    with located(str(source)):
        migrated, notes = migrate_vgs_state(state, to_version)
    content = dump_tensors(migrated)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as file:
        file.write(content)
    from_version = str(state.get("vgs_version", FIRST_VERSION))
    return MigrationReport(
        **vars(notes),
        source=str(source),
        target=str(target),
        kind="vgs-state",
        from_version=from_version,
        to_version=to_version,
    )


def _migrate_model(blueprint: Blueprint, target: Path, steps: Iterable[Step], kind: Kind) -> MigrationReport:
    _build_quietly(blueprint)  # refuses whatever does not fit, so that the steps need not
    migrated, notes = blueprint, _notes_on_reading(blueprint, kind)
    for step in steps:
        migrated, of_step = step(migrated)
        notes += of_step
    extra, of_extra = _extra_members(blueprint)
    model = _build_quietly(migrated)
    target.parent.mkdir(parents=True, exist_ok=True)
    model.save(target, extra_members=extra)
    return MigrationReport(
        **vars(_notes_on_what_is_equal(blueprint, migrated, model) + of_extra + notes),
        source=blueprint.file,
        target=str(target),
        kind=kind,
        from_version=blueprint.arguments.get("vgs_version"),
        to_version=model.vgs_version,
    )


def _build_quietly(blueprint: Blueprint) -> DistributionalPPO:
    """With ``verbose`` SB3 prints where it puts a model, which here is nobody's concern."""
    model = build_model(replace(blueprint, arguments={**blueprint.arguments, "verbose": 0}), device="cpu")
    model.verbose = blueprint.arguments.get("verbose", 0)
    return model


def _notes_on_reading(blueprint: Blueprint, kind: Kind) -> Notes:
    notes = Notes(
        reset=(
            *(f"{name}: {note}; only unpicklers know what it was" for name, note in sorted(blueprint.guessed.items())),
            "episode statistics and last observation: training goes on with a reset of the environment",
        )
    )
    if kind != "checkpoint":
        notes += Notes(
            todo=("if it was trained behind VecNormalize: load the statistics, which SB3 keeps in another file",)
        )
    return notes


def _extra_members(blueprint: Blueprint) -> tuple[dict[str, bytes], Notes]:
    """Members of others are passed on if nothing in them can be executed."""
    extra: dict[str, bytes] = {}
    for name, content in blueprint.extra.items():
        if name.endswith(".pt"):
            load_tensors(content, blueprint.file, name)
        if name.endswith((".pt", ".json")):
            extra[name] = content
    lost = blueprint.extra.keys() - extra.keys()
    return extra, Notes(
        kept=tuple(f"member {name}" for name in sorted(extra)),
        reset=tuple(f"member {name}: left out, neither tensors nor JSON" for name in sorted(lost)),
    )


def _notes_on_what_is_equal(blueprint: Blueprint, migrated: Blueprint, model: DistributionalPPO) -> Notes:
    """What the target holds of the source bit for bit, found out by comparing them."""
    after = model.get_parameters()
    policy, tensors = blueprint.states["policy"], after["policy"]
    equal = [name for name in policy if name in tensors and th.equal(policy[name], tensors[name].cpu())]
    others = [name for name in policy if name not in equal]
    kept = [
        f"policy: {len(equal)} of {len(policy)} tensors, bit for bit"
        + (f" (not {', '.join(others)})" if others else "")
    ]
    entries, found = blueprint.states["policy.optimizer"]["state"], after["policy.optimizer"]["state"]
    if n_equal := sum(_is_equal(entry, found.get(key)) for key, entry in entries.items()):
        name = type(model.policy.optimizer).__name__
        kept.append(f"optimizer {name}: state of {n_equal} of {len(entries)} tensors, bit for bit")
    arguments = [name for name, value in blueprint.arguments.items() if migrated.arguments.get(name) is value]
    kept.append(f"arguments: {', '.join(sorted(set(arguments) - blueprint.guessed.keys()))}")
    kept.append(f"progress: {model.num_timesteps:,} environment steps, {model._n_updates:,} updates")
    return Notes(kept=tuple(kept))


def _is_equal(entry: dict[str, Any], other: dict[str, Any] | None) -> bool:
    if other is None or entry.keys() != other.keys():
        return False
    return all(th.equal(th.as_tensor(value), th.as_tensor(other[name]).cpu()) for name, value in entry.items())


def _kind(archive: Archive) -> Kind:
    if MANIFEST in archive.members:
        return "checkpoint"
    return "sb3-with-vgs" if VGS_MEMBER in archive.members else "sb3"


def _spaces_of(env_id: str) -> Spaces:
    """:raises UserInputError: the environment cannot be made"""
    try:
        env = DistributionalPPO._wrap_env(gym.make(env_id))
    except (gym.error.Error, ImportError, TypeError, ValueError) as error:
        raise UserInputError(
            f"env_id={env_id!r} cannot be made: {str(error).rstrip('.')}; remedy: a registered id, or module:Name-v0"
        ) from error
    with closing(env):
        return Spaces(env.observation_space, env.action_space)


def _refuse_for_bare_states(source: Path, **arguments: str | None) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise UserInputError(
                f"{name}={value!r} has no meaning for {source}, a bare VGS state; remedy: leave it out"
            )


def _checked_target(dst: str | os.PathLike[str], source: Path, *, force: bool) -> Path:
    """:raises UserInputError: nothing may be written there"""
    target = Path(dst)
    if target.resolve() == source.resolve() or (target.exists() and target.samefile(source)):
        raise UserInputError(f"target {target} is the source, which is never changed; remedy: another name")
    if target.is_dir():
        raise UserInputError(f"target {target} is a folder; remedy: the name of a file in it")
    if target.exists() and not force:
        raise UserInputError(f"target {target} exists already; remedy: force=True (--force), or another name")
    return target
