"""Settings that every test shares."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import torch as th

from helpers import without_loops

# Small networks on shared machines: threads cost more than they give, and sums do not depend on their number.
th.set_num_threads(1)


@pytest.fixture(scope="module", params=["loops", "operations"])
def each_computation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Loops compiled by Numba, and what is done without Numba."""
    if request.param == "operations":
        with without_loops():
            yield request.param
    elif importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed: pip install 'sb3-vgs-ppo[fast]'")
    else:
        yield request.param
