"""Names of programs as the user's shell finds them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """
    :param name: console script of this environment
    :return: what to type for it: its name if the shell finds that, else its path (``make train`` activates no
        environment)
    """
    if shutil.which(name):
        return name
    beside_python = Path(sys.executable).with_name(name)
    if not beside_python.exists():
        return name
    relative = os.path.relpath(beside_python)
    return str(beside_python) if relative.startswith("..") else relative
