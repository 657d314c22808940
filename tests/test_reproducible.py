"""Matrix products that do not depend on where in memory the matrices lie: what every promise of equal bits rests on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch as th
import torch.nn.functional as F

PRINT = "import os, sb3_vgs_ppo; print(os.environ['MKL_CBWR'])"


@pytest.mark.parametrize(("given", "used"), [(None, "AUTO,STRICT"), ("COMPATIBLE", "COMPATIBLE")])
def test_mkl_is_asked_for_it_unless_the_user_decides(given: str | None, used: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    environment |= {"MKL_CBWR": given} if given else {}
    printed = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == used


@pytest.mark.parametrize("n_outputs", [1, 2, 64])
def test_a_layer_gives_the_same_wherever_its_tensors_lie(n_outputs: int) -> None:
    generator = th.Generator().manual_seed(0)
    features, weight = th.randn(64, 64, generator=generator), th.randn(n_outputs, 64, generator=generator)
    outputs = [F.linear(at_offset(features, offset), at_offset(weight, offset)) for offset in range(16)]
    assert all(th.equal(output, outputs[0]) for output in outputs)


def at_offset(matrix: th.Tensor, offset: int) -> th.Tensor:
    """:return: a copy that lies so many elements behind the beginning of its memory"""
    memory = th.empty(matrix.numel() + offset)
    return memory[offset:].view_as(matrix).copy_(matrix)
