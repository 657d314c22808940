"""The one registry of version tags: which measure each stands for, and under which tags files name it.

A further version is one class derived from :class:`~sb3_vgs_ppo.scaling.measure.Measure` and one entry in
:data:`MEASURES`.
"""

from __future__ import annotations

import re
from typing import Any

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.scaling.elements_spatial import ElementsSpatial
from sb3_vgs_ppo.scaling.elements_temporal import ElementsTemporal
from sb3_vgs_ppo.scaling.measure import Measure
from sb3_vgs_ppo.scaling.settings import LEGACY_APPLICATION, Application
from sb3_vgs_ppo.scaling.tensor_spatial import TensorSpatial
from sb3_vgs_ppo.scaling.tensor_temporal import TensorMixed, TensorTemporal

MEASURES: dict[str, type[Measure]] = {
    "1.0": ElementsSpatial,
    "2.0": TensorSpatial,
    "3.0": TensorTemporal,
    "3.1": TensorMixed,
    "4.0": ElementsTemporal,
}
KNOWN_VERSIONS: tuple[str, ...] = tuple(MEASURES)
DEFAULT_VERSION = "3.0"

_ALIASES = {"2.0.1": "2.0", "3.2": "3.1"}


def measure_version(found: str) -> str | None:
    """
    :param found: version that a state dict names
    :return: the known version with the same measure (any 1.x is 1.0), None if there is none
    """
    if found in MEASURES:
        return found
    return "1.0" if re.fullmatch(r"1(\.\d+)*", found) else _ALIASES.get(found)


def application_of(version: str, chosen: dict[str, Any]) -> Application:
    """
    :param version: a known version
    :param chosen: fields of :class:`~sb3_vgs_ppo.scaling.settings.Application` that a user has set
    :return: how factors are applied; only versions that look at elements leave a choice
    :raises UserInputError: the version leaves none, or a value is not one of the possible ones
    """
    if MEASURES[version].per_element:
        return Application(**chosen)
    for name, value in chosen.items():
        raise UserInputError(f"{name}={value!r} needs version '4.0', not {version!r}; remedy: drop one of them")
    return LEGACY_APPLICATION
