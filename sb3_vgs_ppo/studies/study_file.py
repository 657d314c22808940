"""A study as values of YAML's kinds: from a file, from the flags of ``compare``, or from the manifest of a study.

.. code-block:: yaml

    env_ids: [CartPole-v1, LunarLander-v3]
    variants:
      - sb3-ppo
      - adam+vgs # one variant per version
      - name: adam-fast
        base: adam+vgs-off
        options: {algo_kwargs: {learning_rate: 1e-3}}
      - name: 1.0-to-3.0
        base: adam+vgs-3.0
        continue_from: adam+vgs-1.0
        from_step: 100_000
    seeds: 5 # 0 to 4, or a list
    total_timesteps: 2e5
    baseline: sb3-ppo
    options: {n_envs: 8}
    environments:
      LunarLander-v3: {total_timesteps: 1e6, algo_kwargs: {gamma: 0.999}}
    thresholds: {CartPole-v1: 475}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo._values import as_whole_number, merged, read_mapping
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.definition import Study, Variant
from sb3_vgs_ppo.studies.variants import default_baseline, variants_from_words

N_SEEDS = 5
"""Seeds unless the study says otherwise. With five, the Mann-Whitney test can reach p = 2 / 252, which is still below
0.05 when Holm corrects it for six comparisons."""

TOTAL_TIMESTEPS = 60_000
"""Environment steps of a cell unless the study says otherwise; the default of ``train``."""

_KEYS_OF_A_VARIANT = ("name", "base", "options", "continue_from", "from_step")


def read_study_file(path: Path) -> dict[str, Any]:
    """
    :param path: YAML or JSON file of a study, or the manifest of one that was run
    :return: its values as they stand there, for :func:`make_study`
    :raises UserInputError: the file cannot be read, or holds no mapping, or one that has a key twice
    """
    values = read_mapping(path, f"study {path}", example="env_ids: [CartPole-v1]")
    is_manifest = "schema" in values and isinstance(values.get("study"), dict)
    return values["study"] if is_manifest else values


def make_study(values: Mapping[str, Any]) -> Study:
    """
    :param values: by name of :class:`Study`'s fields. Of them ``seeds`` may be a number, ``variants`` a list of words
        (see :func:`variants_from_words`) and of mappings with the fields of :class:`Variant` and ``base``, the word for
        the variant whose options they start from, and only ``env_ids`` and ``variants`` must be there
    :raises StudyError: an unknown name, a value of the wrong kind, or no study that can be run
    """
    refuse_unknown("study", values, _READERS)
    for name in ("env_ids", "variants"):
        if not values.get(name):
            raise StudyError(f"a study without {name}; remedy: name at least one")
    defaults = {"seeds": N_SEEDS, "total_timesteps": TOTAL_TIMESTEPS}
    fields = {name: _READERS[name](name, value) for name, value in {**defaults, **values}.items()}
    return Study(**{"baseline": default_baseline(fields["variants"]), **fields})


def _names(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise StudyError(f"{where}: {value!r} is not a list; remedy: [{value}]")
    return tuple(_text(where, name) for name in value)


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise StudyError(f"{where}: {value!r} is not a text; remedy: quotation marks around it")
    return value


def _seeds(where: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(whole_number(where, seed) for seed in value)
    number = whole_number(where, value)
    if number < 1:
        raise StudyError(f"{where}: {number}; remedy: the number of seeds, at least 1, or a list of seeds")
    return tuple(range(number))


def whole_number(where: str, value: Any) -> int:
    """
    :param where: what the value stands at, for the message
    :raises StudyError: it is not a whole number
    """
    try:
        return as_whole_number(value)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from None


def _variants(where: str, value: Any) -> tuple[Variant, ...]:
    if not isinstance(value, (list, tuple)):
        raise StudyError(f"{where}: {value!r} is not a list; remedy: [{value}]")
    variants: list[Variant] = []
    for entry in value:
        variants += [_variant(entry)] if isinstance(entry, Mapping) else variants_from_words([_text(where, entry)])
    return tuple(variants)


def _variant(values: Mapping[str, Any]) -> Variant:
    if "name" not in values:
        raise StudyError(f"variants: {dict(values)} has no name; remedy: name: …")
    name = _text("variants: name", values["name"])
    where = f"variant {name!r}"
    refuse_unknown(where, values, _KEYS_OF_A_VARIANT)
    options = _options(f"{where}: options", values.get("options", {}))
    if "base" in values:
        base = variants_from_words([_text(f"{where}: base", values["base"])])
        if len(base) > 1:
            raise StudyError(f"{where}: base {values['base']!r} stands for {len(base)} variants; remedy: one of them")
        options = merged(base[0].options, options)
    source, step = values.get("continue_from"), values.get("from_step")
    return Variant(
        name,
        options,
        continue_from=None if source is None else _text(f"{where}: continue_from", source),
        from_step=None if step is None else whole_number(f"{where}: from_step", step),
    )


def _environments(where: str, value: Any) -> dict[str, dict[str, Any]]:
    environments: dict[str, dict[str, Any]] = {}
    for env_id, values in _mapping(where, value).items():
        options = _options(f"{where}: {env_id}", values)
        if "total_timesteps" in options:
            steps = whole_number(f"{where}: {env_id}: total_timesteps", options["total_timesteps"])
            options["total_timesteps"] = steps
        environments[env_id] = options
    return environments


def _thresholds(where: str, value: Any) -> dict[str, float]:
    thresholds = _mapping(where, value)
    for env_id, threshold in thresholds.items():
        if not isinstance(threshold, (int, float)) or isinstance(threshold, bool):
            raise StudyError(f"{where}: {env_id}: {threshold!r} is not a number")
    return thresholds


def _options(where: str, value: Any) -> dict[str, Any]:
    """:return: options as the manifest gives them back: of JSON's kinds"""
    return {name: _plain(f"{where}: {name}", entry) for name, entry in _mapping(where, value).items()}


def _plain(where: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return _options(where, value)
    if isinstance(value, (list, tuple)):
        return [_plain(where, entry) for entry in value]
    if (isinstance(value, float) and math.isnan(value)) or not isinstance(value, (str, int, float, bool, type(None))):
        raise StudyError(f"{where}: {value!r} is neither a text, a number, true, false, null, a list nor a mapping")
    return value


def _mapping(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise StudyError(f"{where}: {value!r} is not a mapping")
    return {_text(where, name): entry for name, entry in value.items()}


def refuse_unknown(where: str, values: Iterable[Any], known: Iterable[str]) -> None:
    """
    :param where: what the names stand in, for the message
    :raises StudyError: a name is not among the known ones
    """
    for name in values:
        if name not in known:
            raise StudyError(f"{where}: unknown key {name!r}; {did_you_mean(str(name), known)}")


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "env_ids": _names,
    "variants": _variants,
    "seeds": _seeds,
    "total_timesteps": whole_number,
    "baseline": _text,
    "options": _options,
    "environments": _environments,
    "thresholds": _thresholds,
}
