"""What a study compares: environments, variants and seeds. Every combination of the three is a cell, a training run."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sb3_vgs_ppo._values import merged
from sb3_vgs_ppo.envs import phase_length
from sb3_vgs_ppo.errors import StudyError

DEFAULT_OPTIONS: dict[str, Any] = {
    "eval_every": 0,
    "checkpoint_every": 10_000,
    "keep_checkpoints": 3,
    "device": "cpu",
    "progress": False,
}
"""Options of every cell unless the study says otherwise. Curves are drawn from training episodes, which cost nothing;
the final evaluation is made in any case. Small networks are fastest, and exactly repeatable, on the CPU."""

VGS_OFF = "off"

_SET_ELSEWHERE = ("env_id", "seed", "run_dir", "preset")
_NAME = re.compile(r"[^\W_][\w.+=-]{0,99}")


@dataclass(frozen=True)
class Variant:
    """
    One of the agents that are compared.

    :param name: letters, digits and ``. + = _ -``, at most 100: it is the name of a folder
    :param options: options of ``train`` by field name
    :param continue_from: name of a variant whose agent of the same environment and seed is migrated to this one's VGS
        version and trained on, instead of a new agent from scratch. Their other options must be the same
    :param from_step: environment steps after which it is taken over, at the first checkpoint from there on; a multiple
        of ``checkpoint_every``
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
    :raises StudyError: nothing to compare, something twice, a name that is unknown or cannot be a folder's, a number
        out of range, an option that is not the place's to set, or a variant that cannot continue what it names
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
        self._check_numbers()
        _refuse_options("options", self.options, (*_SET_ELSEWHERE, "total_timesteps"))
        for env_id, options in self.environments.items():
            _refuse_options(f"environments: {env_id}", options, _SET_ELSEWHERE)
        for variant in self.variants:
            where = f"variant {variant.name!r}"
            _refuse_options(where, variant.options, (*_SET_ELSEWHERE, "total_timesteps", "env_kwargs"))
            self._check_continuation(variant)
        for variant, other in itertools.combinations(self.variants, 2):
            if replace(variant, name=other.name) == other:
                raise StudyError(f"variants {variant.name!r} and {other.name!r} are the same; remedy: leave one out")

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
        steps: int = self.environments.get(env_id, {}).get("total_timesteps", self.total_timesteps)
        return steps

    def train_options(self, cell: Cell) -> dict[str, Any]:
        """:return: the options of ``train`` for a cell, without its folder; a variant's win over an environment's"""
        variant = self.variant(cell.variant)
        own = self._given_options(variant, cell.env_id)
        options = {**own, "env_id": cell.env_id, "seed": cell.seed, "total_timesteps": self.steps(cell.env_id)}
        if variant.from_step is not None:
            options["total_timesteps"] -= variant.from_step
        if variant.name in (other.continue_from for other in self.variants):
            needed = math.ceil(options["total_timesteps"] / own["checkpoint_every"]) + 1
            options["keep_checkpoints"] = max(own["keep_checkpoints"], needed)
        return options

    def phase_length(self, env_id: str) -> int | None:
        """:return: environment steps of a phase, None where the task stays the same"""
        options = merged(self.options, self.environments.get(env_id, {}))
        return phase_length(env_id, options.get("env_kwargs", {}))

    def to_mapping(self) -> dict[str, Any]:
        """:return: plain values, from which :func:`~sb3_vgs_ppo.studies.study_file.make_study` makes the same study"""
        return asdict(self)

    def _given_options(self, variant: Variant, env_id: str) -> dict[str, Any]:
        return merged(DEFAULT_OPTIONS, self.options, self.environments.get(env_id, {}), variant.options)

    def _check_names(self) -> None:
        names = [variant.name for variant in self.variants]
        for what, values in (("environments", self.env_ids), ("variants", names), ("seeds", self.seeds)):
            _refuse_empty_and_double(what, values)
        for name in names:
            if not _NAME.fullmatch(name):
                raise StudyError(
                    f"variant {name!r} cannot be a folder's name; remedy: at most 100 letters, digits and . + = _ -, "
                    "and a letter or digit first"
                )
        if self.baseline not in names:
            raise StudyError(f"baseline {self.baseline!r} is not among the variants; remedy: one of {', '.join(names)}")
        for what, mapping in (("environments", self.environments), ("thresholds", self.thresholds)):
            for env_id in mapping:
                if env_id not in self.env_ids:
                    raise StudyError(f"{what}: {env_id!r} is not in the study; remedy: {', '.join(self.env_ids)}")

    def _check_numbers(self) -> None:
        for env_id in self.env_ids:
            if self.steps(env_id) < 1:
                raise StudyError(f"total_timesteps of {env_id}: {self.steps(env_id)}; remedy: at least 1")
        for seed in self.seeds:
            if seed < 0:
                raise StudyError(f"seeds: {seed} is negative; remedy: 0 or more")
        for env_id, threshold in self.thresholds.items():
            if not math.isfinite(threshold):
                raise StudyError(f"thresholds: {env_id}: {threshold} can never be reached; remedy: a finite return")

    def _check_continuation(self, variant: Variant) -> None:
        source, step = variant.continue_from, variant.from_step
        if source is None and step is None:
            return
        where = f"variant {variant.name!r}"
        if source is None or step is None:
            raise StudyError(f"{where}: continue_from and from_step belong together; remedy: both or none")
        parent = next((other for other in self.variants if other.name == source), None)
        if parent is None or parent.continue_from is not None:
            raise StudyError(f"{where}: continue_from {source!r}; remedy: a variant of the study trained from scratch")
        if _without_vgs(parent.options) != _without_vgs(variant.options):
            raise StudyError(
                f"{where} has other options than {source!r}, whose agents it trains on; remedy: vary vgs_version alone"
            )
        if VGS_OFF in [merged(self.options, one.options).get("vgs_version") for one in (parent, variant)]:
            raise StudyError(
                f"{where} or {source!r} has no VGS, so there is nothing to migrate; remedy: versions for both"
            )
        for env_id in self.env_ids:
            if not 0 < step < self.steps(env_id):
                raise StudyError(
                    f"{where}: from_step {step}; remedy: between 0 and {self.steps(env_id)}, all of {env_id}"
                )
            every = self._given_options(parent, env_id)["checkpoint_every"]
            if not isinstance(every, int) or every < 1 or step % every:
                raise StudyError(
                    f"{where}: from_step {step} is no multiple of checkpoint_every {every} on {env_id}; "
                    "remedy: change one of them"
                )
            if self.phase_length(env_id) is not None:
                raise StudyError(
                    f"{where} cannot continue on {env_id}, whose phases would start anew; remedy: a study without it"
                )


def _without_vgs(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "vgs_version"}


def _refuse_empty_and_double(what: str, values: Iterable[Any]) -> None:
    counts = Counter(values)
    if not counts:
        raise StudyError(f"a study without {what}; remedy: name at least one")
    twice = [str(value) for value, count in counts.items() if count > 1]
    if twice:
        raise StudyError(f"{what}: {', '.join(twice)} more than once; remedy: each one once")


def _refuse_options(where: str, options: Mapping[str, Any], refused: tuple[str, ...]) -> None:
    """:raises StudyError: one of the refused names is among the options"""
    remedies = {
        "total_timesteps": "total_timesteps of the study, or of an environment",
        "env_kwargs": "options of the study or of an environment: variants are compared on the same task",
        "preset": "its name as a variant, or as the base of one",
        "run_dir": "leave it out; the study has a folder for every cell",
        "env_id": "env_ids of the study",
        "seed": "seeds of the study",
    }
    for name in refused:
        if name in options:
            raise StudyError(f"{where}: {name} cannot be among the options; remedy: {remedies[name]}")
