from __future__ import annotations

from typing import Any

import pytest

from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.presets import PRESETS
from sb3_vgs_ppo.runs.algorithm import OPTIMIZERS
from sb3_vgs_ppo.runs.config_file import config_from_mapping
from sb3_vgs_ppo.scaling import KNOWN_VERSIONS
from sb3_vgs_ppo.studies.definition import Variant
from sb3_vgs_ppo.studies.variants import FAMILIES, default_baseline, variants_from_words


def test_families_hold_all_that_there_is() -> None:
    assert list(FAMILIES["vgs"]) == ["vgs-off", *(f"vgs-{version}" for version in KNOWN_VERSIONS)]
    assert list(FAMILIES["optimizer"]) == list(OPTIMIZERS)


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for family in FAMILIES.values() for name, options in family.items()]
)
def test_members_set_options_of_train(name: str, options: dict[str, Any]) -> None:
    config = config_from_mapping(options, name)
    assert {option: getattr(config, option) for option in options} == options


def test_a_family_is_all_of_its_members_and_a_member_one() -> None:
    assert [variant.name for variant in variants_from_words(["head", "vgs-3.0"])] == [
        "scalar",
        "quantile",
        "categorical",
        "vgs-3.0",
    ]
    assert variants_from_words(["sb3-ppo"]) == (
        Variant("sb3-ppo", {"value_head": "scalar", "optimizer": "adam", "vgs_version": "off"}),
    )


def test_joined_words_are_every_combination_and_the_last_changes_fastest() -> None:
    variants = variants_from_words(["optimizer+vgs"])
    assert len(variants) == 4 * 6
    assert [variant.name for variant in variants[5:8]] == ["adam+vgs-4.0", "adamw+vgs-off", "adamw+vgs-1.0"]
    assert variants[7].options == {"optimizer": "adamw", "vgs_version": "1.0"}
    assert variants_from_words(["adamw+vgs-1.0"]) == (variants[7],)


def test_presets_are_a_family() -> None:
    (variant,) = variants_from_words(["continual"])
    assert (variant.name, variant.options) == ("continual", PRESETS["continual"])
    assert variants_from_words(["preset"]) == tuple(Variant(name, options) for name, options in PRESETS.items())


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("adamm", "variant 'adamm' is not known; did you mean 'adam'?"),
        ("optimiser+vgs", "variant 'optimiser' is not known; did you mean 'optimizer'?"),
        ("adam+vsg-off", "variant 'vsg-off' is not known; did you mean 'vgs-off'?"),
        ("adam+", "variant '' is not known; known: adam, adamw, adaptive-upgd, baseline, categorical"),
        ("vgs-1.0+vgs-2.0", "variant 'vgs-1.0+vgs-2.0': two parts set vgs_version; remedy: leave one of them out"),
        ("optimizer+sb3-ppo", "variant 'adam+sb3-ppo': two parts set optimizer; remedy: leave one of them out"),
    ],
)
def test_bad_words(word: str, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        variants_from_words(["scalar", word])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("words", "baseline"),
    [
        (["vgs-3.0", "vgs-off", "sb3-ppo"], "sb3-ppo"),
        (["adam+vgs-3.0", "adamw+vgs-off", "adam+vgs-off"], "adamw+vgs-off"),
        (["upgd", "adam"], "upgd"),
    ],
)
def test_the_baseline_if_none_is_named(words: list[str], baseline: str) -> None:
    assert default_baseline(variants_from_words(words)) == baseline
