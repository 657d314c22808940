"""Command-line options from typed dataclasses, through tyro.

The help of an option is its field's docstring. An option that cannot be understood is a :class:`UserInputError` of one
line, where tyro itself would print a box.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo._values import as_whole_number
from sb3_vgs_ppo.errors import UserInputError

Options = TypeVar("Options")

DEBUG_HINT = "With --debug, an error shows its traceback."


def parse_options(options: type[Options], argv: Sequence[str], *, prog: str, default: Options | None = None) -> Options:
    """
    :param options: dataclass with one field per option
    :param argv: command line after the command's name
    :param prog: program and command, as the user typed them
    :param default: options that the command line changes, e.g. those of a file
    :return: the options
    :raises UserInputError: an unknown option, or a value that its option cannot take
    :raises SystemExit: with code 0, after ``--help`` was printed
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, unknown = tyro.cli(
                options,
                prog=prog,
                description=f"{(options.__doc__ or '').strip()} {DEBUG_HINT}",
                args=list(argv),
                default=tyro.MISSING_NONPROP if default is None else default,
                return_unknown_args=True,
                registry=_registry(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        _refuse_unknown(argv, options, prog)  # tyro would complain of what an unknown option has swallowed
        raise UserInputError(f"{_first_sentence(complaint.getvalue())}; see {prog} --help") from None
    if unknown:
        _refuse_unknown(unknown, options, prog)
        raise UserInputError(f"unexpected argument {unknown[0]!r}; see {prog} --help")
    return cast(Options, parsed)


def _registry() -> ConstructorRegistry:
    """What tyro reads differently: whole numbers (1e6 is one), JSON objects, and values that may be missing."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def whole_number(type_info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
        if type_info.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda words: as_whole_number(words[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    @registry.primitive_rule
    def json_object(type_info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[dict[str, Any]] | None:
        if type_info.type_origin is not dict:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="JSON",
            instance_from_str=lambda words: _read_json_object(words[0]),
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda value: [json.dumps(value)],
        )

    @registry.primitive_rule
    def optional(type_info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        kinds = [kind for kind in get_args(type_info.type) if kind is not type(None)]
        if kinds not in ([str], [Path], [int]):
            return None
        converters: dict[type, tuple[str, Callable[[str], Any]]] = {
            str: ("TEXT", str),
            Path: ("PATH", Path),
            int: ("INT", as_whole_number),
        }
        metavar, convert = converters[kinds[0]]
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=lambda words: convert(words[0]),
            is_instance=lambda value: value is None or isinstance(value, kinds[0]),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _read_json_object(text: str) -> dict[str, Any]:
    """:raises ValueError: the text is not a JSON object"""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{text!r} is not JSON ({error}); write e.g. '{{\"gamma\": 0.98}}'") from None
    if not isinstance(value, dict):
        raise ValueError(f"{text!r} is not a JSON object; write e.g. '{{\"gamma\": 0.98}}'")
    return value


def _first_sentence(box: str) -> str:
    """
    :param box: tyro's title and, between rules, complaint and advice; drawn with dashes where there is no UTF-8
    :return: the complaint, on one line
    """
    rows = [line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:]]
    blocks = [" ".join(block) for is_rule, block in groupby(rows, lambda row: not row.strip("─-")) if not is_rule]
    return blocks[0].removeprefix("Error parsing ").rstrip(".")


def _refuse_unknown(words: Sequence[str], options: type, prog: str) -> None:
    """:raises UserInputError: one of the words is an option that there is not"""
    # A field whose flag is a keyword of Python ends with an underscore
    names = [field.name.rstrip("_").replace("_", "-") for field in dataclasses.fields(options)]
    known = [f"--{prefix}{name}" for name in names for prefix in ("", "no-")]
    for word in words:
        name = word.partition("=")[0]
        if re.match("--?[a-zA-Z]", name) and name.replace("_", "-") not in known:
            raise UserInputError(f"no option {name!r}; {did_you_mean(name, known, f'see {prog} --help')}")
