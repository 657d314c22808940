from __future__ import annotations

import pytest
import torch as th

from sb3_vgs_ppo.plasticity import saturated_gate_fraction, weight_norm


def test_one_norm_of_all_parameters() -> None:
    assert weight_norm([th.tensor([[3.0], [-4.0]]), th.tensor([12.0])]) == pytest.approx(13.0)


def test_gates_near_either_end() -> None:
    gates = th.tensor([0.005, 0.02, 0.5, 0.985, 0.995, 1.0, 0.0, 0.3])
    assert saturated_gate_fraction(gates) == 4 / 8
    assert saturated_gate_fraction(gates, margin=0.1) == 6 / 8
