"""How a variant is drawn: the same colour and dash in every figure and on the page.

The colours were searched for: every two of them stay apart (CIE76 distance of at least 20) for normal sight,
protanopia, deuteranopia and tritanopia as Machado et al. (2009) simulate them, and each stands out from its
background by a contrast of at least 3, which WCAG 2.1 asks of graphics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sb3_vgs_ppo.studies.results import StudyResult

Dash = Literal["solid", "dash", "dot"]

MANY = 8
"""More variants than that in one pair of axes cannot be told apart: they are drawn in panels or without bands."""

LIGHT_BACKGROUND = "#ffffff"
DARK_BACKGROUND = "#15181d"
LIGHT_INK = "#30343b"
DARK_INK = "#e6e8eb"
LIGHT = ("#0044cc", "#999900", "#882288", "#11aa66", "#cc77aa", "#665500", "#8888ee")
DARK = ("#0078ff", "#5a8700", "#dfa8ff", "#96e187", "#d26987", "#ffc32d", "#9669b4")
_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot")


@dataclass(frozen=True)
class Style:
    """
    :param light: colour on a light background
    :param dark: colour on a dark one
    """

    light: str
    dark: str
    dash: Dash


def styles(result: StudyResult) -> dict[str, Style]:
    """
    :return: style by variant, in the study's order: the baseline in the colour of the text, the others in the
        palette's, which start anew with another dash when they are used up
    """
    found = [variant.variant for environment in result.environments for variant in environment.variants]
    chosen = {result.baseline: Style(LIGHT_INK, DARK_INK, "solid")}
    for i, name in enumerate(name for name in dict.fromkeys(found) if name != result.baseline):
        chosen[name] = Style(LIGHT[i % len(LIGHT)], DARK[i % len(DARK)], _DASHES[i // len(LIGHT) % len(_DASHES)])
    return chosen
