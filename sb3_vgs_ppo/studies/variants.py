"""Variants by words: ``vgs`` is a family, ``vgs-3.0`` a member of it, ``adam+vgs-3.0`` one agent of two parts.

Options that a word does not set are those of the study, else the defaults of ``train``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.presets import PRESETS
from sb3_vgs_ppo.studies.definition import VGS_OFF, Variant

SB3_PPO = "sb3-ppo"

FAMILIES: dict[str, dict[str, dict[str, Any]]] = {
    "vgs": {f"vgs-{version}": {"vgs_version": version} for version in (VGS_OFF, "1.0", "2.0", "3.0", "3.1", "4.0")},
    "optimizer": {
        "adam": {"optimizer": "adam"},
        "adamw": {"optimizer": "adamw"},
        # Steps along the gradient, whose norm is clipped to 0.5, need SGD's learning rates
        "upgd": {"optimizer": "upgd", "algo_kwargs": {"learning_rate": 0.3}},
        "adaptive-upgd": {"optimizer": "adaptive-upgd"},
    },
    "head": {name: {"value_head": name} for name in ("scalar", "quantile", "categorical")},
    "baseline": {SB3_PPO: {"value_head": "scalar", "optimizer": "adam", "vgs_version": VGS_OFF}},
    "preset": PRESETS,
}
"""Options of ``train`` by member of a family. With those of the baseline, DistributionalPPO trains SB3's PPO with Adam
bit for bit."""

_MEMBERS = {name: options for family in FAMILIES.values() for name, options in family.items()}


def variants_from_words(words: Sequence[str]) -> tuple[Variant, ...]:
    """
    :param words: families, members, or several of either joined by ``+``, which stand for every combination of theirs
    :return: the variants that the words stand for, in their order; the last part of a word changes fastest
    :raises StudyError: an unknown word, or parts of which two set the same option
    """
    return tuple(variant for word in words for variant in _expand(word))


def default_baseline(variants: Sequence[Variant]) -> str:
    """
    :param variants: at least one
    :return: name of the variant that the others are compared with unless the study names one: SB3's PPO if it is there,
        else the first one without VGS, else the first one
    """
    without_vgs = [variant for variant in variants if variant.options.get("vgs_version") == VGS_OFF]
    by_preference = [variant for variant in variants if variant.name == SB3_PPO] + without_vgs + list(variants)
    return by_preference[0].name


def _expand(word: str) -> list[Variant]:
    members = [list(FAMILIES[part]) if part in FAMILIES else [part] for part in word.split("+")]
    return [Variant("+".join(names), _options(names)) for names in itertools.product(*members)]


def _options(names: Sequence[str]) -> Mapping[str, Any]:
    """:return: what members set together"""
    options: dict[str, Any] = {}
    for name in names:
        if name not in _MEMBERS:
            raise StudyError(f"variant {name!r} is not known; {did_you_mean(name, [*FAMILIES, *_MEMBERS])}")
        for option in _MEMBERS[name]:
            if option in options:
                raise StudyError(f"variant {'+'.join(names)!r}: two parts set {option}; remedy: leave one of them out")
        options.update(_MEMBERS[name])
    return options
