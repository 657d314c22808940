from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sb3_vgs_ppo._values import as_whole_number, merged, read_mapping
from sb3_vgs_ppo.errors import UserInputError


@pytest.mark.parametrize(
    ("value", "number"),
    [(7, 7), (7.0, 7), ("7", 7), ("1e6", 10**6), ("100_000", 10**5), (2**53 + 1, 2**53 + 1), ("-3", -3)],
)
def test_whole_numbers(value: object, number: int) -> None:
    assert as_whole_number(value) == number


@pytest.mark.parametrize("value", [1.5, "1.5", "many", "", None, True, "nan", float("inf"), "1e400000000"])
def test_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(ValueError, match=r"is not a whole number"):
        as_whole_number(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("file.yaml", "a: 1\nb: 2\na: 3\n"),
        ("file.yaml", "b: [{a: 1, a: 1}]"),
        ("file.json", '{"b": {"a": 1, "a": 2}}'),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(
        UserInputError, match=r"^the file is neither YAML nor JSON: key 'a' stands there twice"
    ) as caught:
        read_mapping(tmp_path / name, "the file", example="a: 1")
    assert "\n" not in str(caught.value)


def test_a_merged_key_may_be_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("first: &first {a: 1, b: 2}\nsecond: &second {<<: *first, b: 3}\nthird: {<<: *second, a: 4}")
    values = read_mapping(path, "the file", example="a: 1")
    assert values["second"] == {"a": 1, "b": 3}
    assert values["third"] == {"a": 4, "b": 3}


def test_merging_goes_into_mappings_and_changes_none() -> None:
    first: Mapping[str, Any] = {"a": 1, "kwargs": {"x": 1, "deep": {"u": 1}}}
    second: Mapping[str, Any] = {"b": 2, "kwargs": {"y": 2, "deep": {"u": 3, "v": [1]}}}
    assert merged(first, second) == {"a": 1, "b": 2, "kwargs": {"x": 1, "y": 2, "deep": {"u": 3, "v": [1]}}}
    assert merged({"kwargs": {"x": 1}}, {"kwargs": None}) == {"kwargs": None}
    assert first == {"a": 1, "kwargs": {"x": 1, "deep": {"u": 1}}}
