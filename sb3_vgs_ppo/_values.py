"""Values as users write them: whole numbers, and options, in YAML or JSON files and one over the other."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from sb3_vgs_ppo.errors import UserInputError


def as_whole_number(value: object) -> int:
    """
    :param value: a number or its text; ``1e6`` and ``100_000`` are whole numbers too
    :raises ValueError: it is not a whole number, or has more than 18 digits
    """
    try:
        number = Decimal(str(value))
        if abs(number) < 10**18 and number == number.to_integral_value():
            return int(number)
    except ArithmeticError:  # no number at all, NaN, or beyond Decimal's range
        pass
    raise ValueError(f"{value!r} is not a whole number")


def read_mapping(path: Path, source: str, example: str) -> dict[str, Any]:
    """
    :param path: YAML file, or JSON file if its name says so
    :param source: what the file is to the user, for error messages: ``--config run.yaml``
    :param example: a line that could stand in such a file
    :raises UserInputError: the file cannot be read, holds no mapping, or a mapping in it has a key twice
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            values = json.loads(text, object_pairs_hook=_without_duplicates)
        else:
            values = yaml.load(text, Loader=_YamlLoader)
    except OSError as error:
        raise UserInputError(f"{source} cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserInputError(f"{source} is neither YAML nor JSON: {reason}") from None
    if not isinstance(values, dict):
        raise UserInputError(f"{source} holds no options; write lines such as {example!r}")
    return values


def merged(*mappings: Mapping[str, Any]) -> dict[str, Any]:
    """:return: the mappings one over the other; mappings inside them are merged likewise"""
    result: dict[str, Any] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            both_mappings = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
            result[name] = merged(result[name], value) if both_mappings else value
    return result


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """:raises ValueError: a key stands twice, of which Python's reader would silently keep the second"""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"key {key!r} stands there twice")
        values[key] = value
    return values


class _YamlLoader(yaml.SafeLoader):
    """
    Safe, reads ``3e-4`` as a number and ``off`` as a word, as YAML 1.2 does, and refuses a key that stands twice.

    PyYAML follows YAML 1.1, where ``learning_rate: 3e-4`` is a text and ``vgs_version: off`` is false, and keeps the
    second of two equal keys.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not where mappings are built: by then merge keys (<<) have been resolved, which may repeat a key
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"key {key.value!r} stands there twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


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
