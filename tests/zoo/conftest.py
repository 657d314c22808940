"""The zoo is imported here, once and before the tests import it, because of what that does to gymnasium."""

from __future__ import annotations

import importlib.util

from helpers import import_zoo

if importlib.util.find_spec("rl_zoo3") is None:
    collect_ignore = ["test_zoo.py"]
else:
    import_zoo()
