"""What a study compares: environments, variants and seeds. Every combination of the three is a cell, a training run."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sb3_vgs_ppo.envs import phase_length
from sb3_vgs_ppo.errors import StudyError

DEFAULT_OPTIONS: dict[str, Any] = {"eval_every": 0, "progress": False}
"""Options of every cell unless the study says otherwise. Curves are drawn from training episodes, which cost nothing;
the final evaluation is made in any case."""

_OF_THE_CELL = ("env_id", "seed", "total_timesteps", "run_dir")
_NAME = re.compile(r"[\w.+=-]+")


@dataclass(frozen=True)
class Variant:
    """
    One of the agents that are compared.

    :param name: letters, digits and ``. + = _ -``: it is the name of a folder
    :param options: options of ``train`` by field name
    :param continue_from: name of a variant whose agent of the same environment and seed is migrated to this one's VGS
        version and trained on, instead of a new agent from scratch. Its other options must be that variant's
    :param from_step: environment steps after which it is taken over: the first checkpoint from there on
    """

    name: str
    options: Mapping[str, Any]
    continue_from: str | None = None
    from_step: int | None = None


@dataclass(frozen=True, order=True)
class Cell:
    """One training run of a study."""

    env_id: str
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.env_id} / {self.variant} / seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """
    :param env_ids: registered environments
    :param variants: agents, in the order in which they are shown
    :param seeds: seeds of every environment and variant
    :param total_timesteps: environment steps of a cell
    :param baseline: name of the variant that the others are compared with
    :param options: options of ``train`` for all cells
    :param environments: options of ``train`` by environment, ``total_timesteps`` among them
    :param thresholds: by environment a return; the first step at which a curve reaches it is reported
    :raises StudyError: nothing to compare, a name twice or of forbidden characters, or an unknown name
    """

    env_ids: tuple[str, ...]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    total_timesteps: int
    baseline: str
    options: Mapping[str, Any] = field(default_factory=dict)
    environments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_names()
        for where, options in (("options", self.options), *((v.name, v.options) for v in self.variants)):
            _refuse_cell_options(where, options, _OF_THE_CELL)
        for env_id, options in self.environments.items():
            _refuse_cell_options(env_id, options, ("env_id", "seed", "run_dir"))
        for variant in self.variants:
            self._check_continuation(variant)

    def cells(self) -> Iterator[Cell]:
        """:return: all cells, seeds outermost: an unfinished study has something of everything"""
        for seed in self.seeds:
            for env_id in self.env_ids:
                for variant in self.variants:
                    yield Cell(env_id, variant.name, seed)

    def variant(self, name: str) -> Variant:
        """:return: the variant of this name"""
        return next(variant for variant in self.variants if variant.name == name)

    def parent(self, cell: Cell) -> Cell | None:
        """:return: the cell whose agent this one trains on, None if it starts from scratch"""
        source = self.variant(cell.variant).continue_from
        return None if source is None else Cell(cell.env_id, source, cell.seed)

    def steps(self, env_id: str) -> int:
        """:return: environment steps of a cell"""
        return int(self.environments.get(env_id, {}).get("total_timesteps", self.total_timesteps))

    def train_options(self, cell: Cell) -> dict[str, Any]:
        """:return: the options of ``train`` for a cell, without its folder; a variant's win over an environment's"""
        variant = self.variant(cell.variant)
        own = merged(DEFAULT_OPTIONS, self.options, self.environments.get(cell.env_id, {}), variant.options)
        options = {**own, "env_id": cell.env_id, "seed": cell.seed, "total_timesteps": self.steps(cell.env_id)}
        if variant.from_step is not None:
            options["total_timesteps"] -= variant.from_step
        return {**options, **self._checkpoints_to_keep(variant, cell.env_id, options)}

    def phase_length(self, env_id: str) -> int | None:
        """:return: environment steps of a phase, None where the task stays the same"""
        options = merged(self.options, self.environments.get(env_id, {}))
        return phase_length(env_id, options.get("env_kwargs", {}))

    def to_mapping(self) -> dict[str, Any]:
        """:return: plain values, from which :func:`study_from_mapping` makes the same study"""
        return asdict(self)

    def _check_names(self) -> None:
        names = [variant.name for variant in self.variants]
        for what, values in (("environments", self.env_ids), ("variants", names), ("seeds", self.seeds)):
            _refuse_empty_and_double(what, values)
        for name in names:
            if not _NAME.fullmatch(name):
                raise StudyError(f"variant {name!r}: a name has letters, digits and . + = _ - only")
        if self.baseline not in names:
            raise StudyError(f"baseline {self.baseline!r} is not among the variants; remedy: one of {', '.join(names)}")
        for what, mapping in (("environments", self.environments), ("thresholds", self.thresholds)):
            for env_id in mapping:
                if env_id not in self.env_ids:
                    raise StudyError(f"{what}: {env_id!r} is not in the study; remedy: {', '.join(self.env_ids)}")

    def _check_continuation(self, variant: Variant) -> None:
        source, step = variant.continue_from, variant.from_step
        if source is None and step is None:
            return
        if source is None or step is None:
            raise StudyError(f"variant {variant.name!r}: continue_from and from_step belong together")
        parents = [other for other in self.variants if other.name == source and other.continue_from is None]
        if not parents or source == variant.name:
            raise StudyError(f"variant {variant.name!r}: continue_from {source!r} is no variant trained from scratch")
        if _without_vgs(parents[0].options) != _without_vgs(variant.options):
            raise StudyError(
                f"variant {variant.name!r} has other options than {source!r}, whose agents it trains on; "
                "remedy: change vgs_version alone"
            )
        for env_id in self.env_ids:
            if not 0 < step < self.steps(env_id):
                raise StudyError(
                    f"variant {variant.name!r}: from_step {step}; remedy: between 0 and the {self.steps(env_id)} steps"
                )
            if self.phase_length(env_id) is not None:
                raise StudyError(f"variant {variant.name!r} cannot continue on {env_id}, whose phases would start anew")

    def _checkpoints_to_keep(self, variant: Variant, env_id: str, options: Mapping[str, Any]) -> dict[str, int]:
        """:return: options that keep the checkpoints from which other variants are continued"""
        steps = [other.from_step for other in self.variants if other.continue_from == variant.name and other.from_step]
        if not steps:
            return {}
        every = math.gcd(*steps)
        return {"checkpoint_every": every, "keep_checkpoints": math.ceil(self.steps(env_id) / every) + 1}


def study_from_mapping(values: Mapping[str, Any]) -> Study:
    """
    :param values: what :meth:`Study.to_mapping` returned, as JSON gives it back
    :raises TypeError: other names or kinds of values
    """
    fields = dict(values)
    fields["variants"] = tuple(Variant(**variant) for variant in fields["variants"])
    fields["env_ids"], fields["seeds"] = tuple(fields["env_ids"]), tuple(fields["seeds"])
    return Study(**fields)


def merged(*mappings: Mapping[str, Any]) -> dict[str, Any]:
    """:return: the mappings one over the other; mappings inside them are merged likewise"""
    result: dict[str, Any] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            both_mappings = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
            result[name] = merged(result[name], value) if both_mappings else value
    return result


def _without_vgs(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "vgs_version"}


def _refuse_empty_and_double(what: str, values: Iterable[Any]) -> None:
    counts = Counter(values)
    if not counts:
        raise StudyError(f"a study without {what}; remedy: name at least one")
    twice = [str(value) for value, count in counts.items() if count > 1]
    if twice:
        raise StudyError(f"{what}: {', '.join(twice)} more than once; remedy: each one once")


def _refuse_cell_options(where: str, options: Mapping[str, Any], refused: tuple[str, ...]) -> None:
    for name in refused:
        if name in options:
            raise StudyError(f"{where}: {name} is set by the study itself; remedy: leave it out of the options")
