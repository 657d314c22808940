"""
Stable-Baselines3's ``data`` member, read without unpickling.

SB3 writes a model's attributes as one JSON object. What JSON cannot hold becomes an object with ``:type:``, the pickle
in ``:serialized:``, and the value's own attributes as text for whoever reads the file
(``stable_baselines3.common.save_util.data_to_json``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sb3_vgs_ppo.checkpoint.json_text import Json, read_json_object

DATA = "data"
SYSTEM_INFO = "system_info.txt"

_PICKLE = ":serialized:"
_TYPE = ":type:"


@dataclass(frozen=True)
class PickledEntry:
    """
    What can be said about a pickle that is not opened. Both fields are what the file claims.

    :param type_name: dotted name of the value's type
    :param shown: the value's attributes as SB3 wrote them for a human reader
    """

    type_name: str
    shown: Mapping[str, Json]


@dataclass(frozen=True)
class Sb3Data:
    """
    A model's attributes.

    :param values: those that are plain JSON
    :param pickled: those that are pickles
    """

    values: Mapping[str, Json]
    pickled: Mapping[str, PickledEntry]


def read_sb3_data(content: bytes, file: str) -> Sb3Data:
    """
    :param content: the ``data`` member
    :param file: the checkpoint, for messages
    :return: plain values, and the names and types of pickled ones
    :raises CheckpointError: not a JSON object
    """
    values: dict[str, Json] = {}
    pickled: dict[str, PickledEntry] = {}
    # SB3 writes NaN and infinities as Python does.
    for name, value in read_json_object(content, f"{file}: {DATA}", strict=False).items():
        if isinstance(value, dict) and _PICKLE in value:
            shown = {key: item for key, item in value.items() if key not in (_PICKLE, _TYPE)}
            pickled[name] = PickledEntry(strip_class(str(value.get(_TYPE, "unknown"))), shown)
        else:
            values[name] = value
    return Sb3Data(values, pickled)


def read_versions(content: bytes) -> dict[str, str]:
    """
    :param content: the ``system_info.txt`` member: lines such as ``- Python: 3.11.7``
    :return: versions of the software that wrote the file, under a manifest's names; those that were found
    """
    names = {
        "Python": "python",
        "Stable-Baselines3": "stable-baselines3",
        "PyTorch": "torch",
        "Gymnasium": "gymnasium",
        "Numpy": "numpy",
    }
    found = re.findall(r"^- ([\w-]+): (\S+)", content.decode("utf-8", errors="replace"), flags=re.MULTILINE)
    return {names[name]: version for name, version in found if name in names}


def strip_class(text: str) -> str:
    """
    :param text: a type as Python prints it, ``"<class 'torch.optim.adam.Adam'>"``
    :return: its dotted name; the text itself if it is not one
    """
    match = re.fullmatch(r"<class '([^']+)'>", text)
    return match[1] if match else text
