"""Options of a training run from a YAML or JSON file, or from the record of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo._values import as_whole_number, merged, read_mapping
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.presets import preset_options
from sb3_vgs_ppo.runs.config import TrainConfig


def read_config_file(path: Path, preset: str | None = None) -> TrainConfig:
    """
    Read the options in a YAML or JSON file, or those in the ``config.json`` of a run.

    :param preset: the preset below them, instead of the one that the file may name
    :raises UserInputError: the file cannot be read, has an unknown key, a key twice, or a value of the wrong type
    """
    values = read_mapping(path, f"--config {path}", example="env_id: CartPole-v1")
    is_record_of_run = isinstance(values.get("options"), dict)
    options = values["options"] if is_record_of_run else values
    return config_from_mapping(options if preset is None else {**options, "preset": preset}, f"--config {path}")


def config_from_mapping(values: Mapping[str, Any], source: str) -> TrainConfig:
    """
    :param values: options by field name; those that are missing are the preset's if ``preset`` names one, else the
        defaults
    :param source: what the values were read from, for error messages
    :raises UserInputError: an unknown name or preset, or a value of the wrong type
    """
    hints = get_type_hints(TrainConfig)
    values = over_preset(values)
    for name in values:
        if name not in hints:
            raise UserInputError(f"{source}: unknown key {name!r}; {did_you_mean(str(name), hints)}")
    try:
        return TrainConfig(**{name: _convert(name, value, hints[name]) for name, value in values.items()})
    except ValueError as error:
        raise UserInputError(f"{source}: {error}") from None


def over_preset(options: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param options: options by field name
    :return: the options over those of the preset that ``preset`` among them names, mappings merged; as they are where
        it names none
    :raises UserInputError: there is no such preset
    """
    name = options.get("preset")
    return dict(options) if name is None else merged(preset_options(str(name)), options)


def _convert(name: str, value: Any, hint: Any) -> Any:
    """
    :param hint: the field's type
    :raises ValueError: the value does not fit it
    """
    kinds = get_args(hint)
    if get_origin(hint) is Literal:
        if value in kinds:
            return value
        raise ValueError(f"{name}: {value!r}; {did_you_mean(str(value), map(str, kinds))}")
    if hint is int:
        try:
            return as_whole_number(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if hint is bool or get_origin(hint) is dict:
        if isinstance(value, get_origin(hint) or hint):
            return value
        raise ValueError(f"{name}: {value!r} is not {'true or false' if hint is bool else 'a mapping'}")
    if value is None and type(None) in kinds:
        return None
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)  # an unquoted 3.0 is a number for YAML, and the name of a version for us
    raise ValueError(f"{name}: {value!r} is not a text")
