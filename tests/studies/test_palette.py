"""The palette keeps what its module promises, computed by another route than the search that found it."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from sb3_vgs_ppo.studies.palette import DARK, DARK_BACKGROUND, DARK_INK, LIGHT, LIGHT_BACKGROUND, LIGHT_INK, styles

from .synthetic import BASELINE, CARTPOLE, SIXTEEN, make_study

Array = npt.NDArray[np.float64]

SIGHT = {  # Machado, Oliveira & Fernandes (2009), table 1: linear RGB as seen with full severity
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color: str) -> Array:
    values = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2.1: ratio of relative luminances."""
    dim, bright = sorted(float(TO_XYZ[1] @ linear(color)) for color in (one, other))
    return (bright + 0.05) / (dim + 0.05)


def lab(color: str, sight: str) -> Array:
    xyz = TO_XYZ @ np.clip(SIGHT[sight] @ linear(color), 0, 1) / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(
    ("colors", "background"), [((LIGHT_INK, *LIGHT), LIGHT_BACKGROUND), ((DARK_INK, *DARK), DARK_BACKGROUND)]
)
def test_colours_stand_out_and_stay_apart(colors: tuple[str, ...], background: str) -> None:
    assert min(contrast(color, background) for color in colors) >= 3
    for sight in SIGHT:
        distances = [
            np.linalg.norm(lab(one, sight) - lab(other, sight)) for one, other in itertools.combinations(colors, 2)
        ]
        assert min(distances) >= 20, sight


def test_sixteen_variants_differ() -> None:
    look = styles(make_study((CARTPOLE,), SIXTEEN, n_seeds=1, points=5))
    assert list(look) == list(SIXTEEN)
    assert look[BASELINE].light == LIGHT_INK
    assert len({(style.light, style.dash) for style in look.values()}) == 16
