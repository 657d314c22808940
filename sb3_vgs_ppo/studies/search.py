"""A search for good options, as values of YAML's kinds: what is tried, on what, and with which budget.

.. code-block:: yaml

    env_id: ContinualCartPole-v0
    total_timesteps: 480_000
    seeds: [100, 101] # of every trial; not those of the studies that compare what is found
    objective: late_phases # or final, area
    n_trials: 20 # of every family
    batch_size: 4
    sampler_seed: 0
    options: {checkpoint_every: 40_000}
    families:
      - name: ours
        base: continual
        space:
          algo_kwargs.learning_rate: {low: 1e-4, high: 2e-3, log: true}
          change_kwargs.reset: {choices: [head, all]}
          vgs: # choices that set several options have names
            choices:
              "off": {vgs_version: off}
              "4.0": {vgs_version: 4.0, algo_kwargs: {vgs_kwargs: {apply_to: update}}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo._values import merged, read_mapping
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.definition import Study, Variant
from sb3_vgs_ppo.studies.study_file import make_study, refuse_unknown, whole_number
from sb3_vgs_ppo.studies.summary import MEASURES

Value: TypeAlias = str | int | float | bool

_OF_A_STUDY = ("total_timesteps", "seeds", "options")
_KEYS = ("env_id", *_OF_A_STUDY, "objective", "n_trials", "batch_size", "sampler_seed", "families")
_NEEDED = ("env_id", "total_timesteps", "n_trials", "families")


@dataclass(frozen=True)
class Range:
    """
    A number between two ends.

    :param path: option of ``train`` that it sets, ``algo_kwargs.learning_rate`` for one in a mapping
    :param log: whether its logarithm is what is drawn evenly
    """

    path: str
    low: float
    high: float
    log: bool = False

    @property
    def extremes(self) -> tuple[Value, ...]:
        """Values that between them meet every check of the options."""
        return self.low, self.high

    def options(self, value: Value) -> dict[str, Any]:
        """:return: what the value sets"""
        return _nested(self.path, value)


@dataclass(frozen=True)
class Choices:
    """
    One of several values.

    :param path: as in :class:`Range`; any name where values have options of their own
    :param values: the values, or their names
    :param options_by_name: options of each named value, None where values set the option at ``path``
    """

    path: str
    values: tuple[Value, ...]
    options_by_name: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def extremes(self) -> tuple[Value, ...]:
        """All values."""
        return self.values

    def options(self, value: Value) -> Mapping[str, Any]:
        """:return: what the value sets"""
        return _nested(self.path, value) if self.options_by_name is None else self.options_by_name[str(value)]


Parameter: TypeAlias = Range | Choices


@dataclass(frozen=True)
class Family:
    """
    Agents among which the best one is sought.

    :param name: start of the names of its trials
    :param options: options of ``train`` that all of them have
    :param space: what differs between them
    """

    name: str
    options: Mapping[str, Any]
    space: tuple[Parameter, ...]

    def variant(self, number: int, values: Mapping[str, Value]) -> Variant:
        """
        :param number: of the trial
        :param values: by path
        """
        set_options = [parameter.options(values[parameter.path]) for parameter in self.space]
        return Variant(f"{self.name}-{number:04d}", merged(self.options, *set_options))

    def corners(self) -> Iterator[dict[str, Value]]:
        """:return: values of few agents among which every extreme of every parameter is met"""
        first = {parameter.path: parameter.extremes[0] for parameter in self.space}
        yield first
        for parameter in self.space:
            for value in parameter.extremes[1:]:
                yield {**first, parameter.path: value}


@dataclass(frozen=True)
class Search:
    """
    :param env_id: registered environment
    :param total_timesteps: environment steps of a run
    :param seeds: runs of a trial
    :param families: each has the same number of trials
    :param n_trials: trials of a family
    :param batch_size: trials of a family that are chosen together, before any of them is trained. Each round trains
        those of all families; more of them keep more workers busy, and let the sampler know less
    :param sampler_seed: seeds the choice of values
    :param objective: what is made large, as mean over the seeds: a measure of
        :data:`~sb3_vgs_ppo.studies.summary.MEASURES`
    :param options: options of ``train`` for all runs
    """

    env_id: str
    total_timesteps: int
    seeds: tuple[int, ...]
    families: tuple[Family, ...]
    n_trials: int
    batch_size: int = 4
    sampler_seed: int = 0
    objective: str = "late_phases"
    options: Mapping[str, Any] = field(default_factory=dict)

    def study(self, variants: Iterable[Variant]) -> Study:
        """
        :param variants: at least one, none equal to another
        :return: a study that trains them as the search does
        """
        chosen = tuple(variants)
        return Study(
            env_ids=(self.env_id,),
            variants=chosen,
            seeds=self.seeds,
            total_timesteps=self.total_timesteps,
            baseline=chosen[0].name,
            options=self.options,
        )

    def to_mapping(self) -> dict[str, Any]:
        """:return: plain values, families and parameters by name"""
        families = {
            family.name: {"options": family.options, "space": {one.path: asdict(one) for one in family.space}}
            for family in self.families
        }
        return {**asdict(self), "families": families}


@dataclass(frozen=True)
class TrialResult:
    """
    :param family: its name
    :param values: what was tried, by path
    :param variant: that of the study of all trials with its options
    :param scores: objective of each seed, in their order
    """

    family: str
    number: int
    values: Mapping[str, Value]
    variant: Variant
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds, NaN if a seed has no score."""
        return math.fsum(self.scores) / len(self.scores)


def read_search_file(path: Path) -> Search:
    """
    :param path: YAML or JSON file, see the head of this module
    :raises UserInputError: the file cannot be read, or holds no search
    """
    return make_search(read_mapping(path, f"search {path}", example="env_id: ContinualCartPole-v0"))


def make_search(values: Mapping[str, Any]) -> Search:
    """
    :param values: see the head of this module
    :raises StudyError: an unknown name, a value of the wrong kind or out of range, or nothing to search
    """
    refuse_unknown("search", values, _KEYS)
    for name in _NEEDED:
        if not values.get(name):
            raise StudyError(f"a search without {name}; remedy: name it")
    if not isinstance(values["families"], list):
        raise StudyError(f"families: {values['families']!r} is not a list; remedy: one entry with a name for each")
    families = tuple(_family(values, entry) for entry in values["families"])
    names = [family.name for family in families]
    if len(set(names)) < len(names):
        raise StudyError(f"families: {', '.join(names)}: one name is there twice; remedy: each one once")
    study = make_study(_study_values(values, {"name": names[0]}))
    numbers = {
        name: _at_least(least, name, values[name])
        for name, least in (("n_trials", 1), ("batch_size", 1), ("sampler_seed", 0))
        if name in values
    }
    search = Search(
        env_id=study.env_ids[0],
        total_timesteps=study.total_timesteps,
        seeds=study.seeds,
        families=families,
        options=study.options,
        objective=str(values.get("objective", "late_phases")),
        **numbers,
    )
    _check_objective(search, study)
    return search


def first_of_equals(variants: Iterable[Variant]) -> list[Variant]:
    """:return: for each variant the first one with its options: equal ones share their runs"""
    first: dict[str, Variant] = {}
    return [first.setdefault(json.dumps(variant.options, sort_keys=True), variant) for variant in variants]


def _nested(path: str, value: Value) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {head: _nested(rest, value) if rest else value}


def _study_values(values: Mapping[str, Any], variant: Mapping[str, Any]) -> dict[str, Any]:
    common = {name: values[name] for name in _OF_A_STUDY if name in values}
    return {**common, "env_ids": [values["env_id"]], "variants": [variant]}


def _family(values: Mapping[str, Any], entry: Any) -> Family:
    if not isinstance(entry, Mapping):
        raise StudyError(f"families: {entry!r} is not a mapping; remedy: name, base or options, space")
    variant = make_study(
        _study_values(values, {name: value for name, value in entry.items() if name != "space"})
    ).variants[0]
    space = entry.get("space")
    if not isinstance(space, Mapping) or not space:
        raise StudyError(f"family {variant.name!r} has no space; remedy: options with their ranges or choices")
    return Family(
        variant.name,
        variant.options,
        tuple(_parameter(f"family {variant.name!r}: {path}", str(path), spec) for path, spec in space.items()),
    )


def _parameter(where: str, path: str, spec: Any) -> Parameter:
    if isinstance(spec, Mapping) and "choices" in spec:
        refuse_unknown(where, spec, ["choices"])
        return _choices(where, path, spec["choices"])
    if isinstance(spec, Mapping) and {"low", "high"} <= spec.keys():
        refuse_unknown(where, spec, ["low", "high", "log"])
        return _range(where, path, **spec)
    raise StudyError(f"{where}: {spec!r}; remedy: {{low: …, high: …, log: true}} or {{choices: […]}}")


def _range(where: str, path: str, low: Any, high: Any, log: Any = False) -> Range:
    for end in (low, high):
        if not isinstance(end, (int, float)) or isinstance(end, bool) or not math.isfinite(end):
            raise StudyError(f"{where}: {end!r} is no finite number")
    if not isinstance(log, bool):
        raise StudyError(f"{where}: log {log!r} is not true or false")
    if low >= high:
        raise StudyError(f"{where}: low {low} is not below high {high}; remedy: exchange them, or choices")
    if log and low <= 0:
        raise StudyError(f"{where}: low {low} has no logarithm; remedy: a positive number, or log: false")
    return Range(path, float(low), float(high), log)


def _choices(where: str, path: str, choices: Any) -> Choices:
    if not isinstance(choices, (list, Mapping)) or len(choices) < 2:
        raise StudyError(
            f"{where}: choices {choices!r}; remedy: a list of two or more, or a mapping of names to options"
        )
    if isinstance(choices, Mapping):
        for name, options in choices.items():
            if not isinstance(name, str) or not isinstance(options, Mapping):
                raise StudyError(f"{where}: {name!r}: {options!r}; remedy: a name in quotation marks, and its options")
        return Choices(path, tuple(choices), dict(choices))
    for value in choices:
        if not isinstance(value, (str, int, float)):
            raise StudyError(f"{where}: {value!r} is no text, number, true or false; remedy: a name with options")
    if len(set(map(repr, choices))) < len(choices):
        raise StudyError(f"{where}: choices {choices!r}: one is there twice; remedy: each one once")
    return Choices(path, tuple(choices))


def _check_objective(search: Search, study: Study) -> None:
    if search.objective not in MEASURES:
        raise StudyError(f"objective {search.objective!r} is not known; {did_you_mean(search.objective, MEASURES)}")
    length = study.phase_length(search.env_id)
    if search.objective == "late_phases" and (length is None or length > search.total_timesteps):
        raise StudyError(
            f"objective late_phases: {search.env_id} has no phase in {search.total_timesteps} steps; "
            "remedy: objective final or area, or a task that changes"
        )


def _at_least(least: int, name: str, value: Any) -> int:
    number = whole_number(name, value)
    if number < least:
        raise StudyError(f"{name} {number} is too small; remedy: at least {least}")
    return number
