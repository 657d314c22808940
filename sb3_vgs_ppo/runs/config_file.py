"""Options of a training run from a YAML or JSON file, or from the record of an earlier run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.config import TrainConfig, as_whole_number


def read_config_file(path: Path) -> TrainConfig:
    """
    Read the options in a YAML or JSON file, or those in the ``config.json`` of a run.

    :raises UserInputError: the file cannot be read, has an unknown key, or a value of the wrong type
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_YamlLoader)
    except OSError as error:
        raise UserInputError(f"--config {path} cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UserInputError(f"--config {path} is neither YAML nor JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserInputError(f"--config {path} holds no options; write lines such as 'env_id: CartPole-v1'")
    is_record_of_run = isinstance(values.get("options"), dict)
    return config_from_mapping(values["options"] if is_record_of_run else values, f"--config {path}")


def config_from_mapping(values: Mapping[str, Any], source: str) -> TrainConfig:
    """
    :param values: options by field name
    :param source: what the values were read from, for error messages
    :raises UserInputError: an unknown name, or a value of the wrong type
    """
    hints = get_type_hints(TrainConfig)
    for name in values:
        if name not in hints:
            raise UserInputError(f"{source}: unknown key {name!r}; {did_you_mean(str(name), hints)}")
    try:
        return TrainConfig(**{name: _convert(name, value, hints[name]) for name, value in values.items()})
    except ValueError as error:
        raise UserInputError(f"{source}: {error}") from None


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


class _YamlLoader(yaml.SafeLoader):
    """
    Safe, and reads ``3e-4`` as a number and ``off`` as a word, as YAML 1.2 does.

    PyYAML follows YAML 1.1, where ``learning_rate: 3e-4`` is a text and ``vgs_version: off`` is false.
    """


def _use_yaml_1_2_scalars(loader: type[yaml.SafeLoader]) -> None:
    replaced = {
        "tag:yaml.org,2002:bool": (r"(true|True|TRUE|false|False|FALSE)$", "tTfF"),
        "tag:yaml.org,2002:float": (
            r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$",
            "-+.0123456789",
        ),
    }
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in replaced]
        for first, resolvers in loader.yaml_implicit_resolvers.items()
    }
    for tag, (pattern, first) in replaced.items():
        loader.add_implicit_resolver(tag, re.compile(pattern), list(first))


_use_yaml_1_2_scalars(_YamlLoader)
