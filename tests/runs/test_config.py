from __future__ import annotations

from dataclasses import replace

import pytest

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.config import TrainConfig, check_config
from sb3_vgs_ppo.scaling import DEFAULT_VERSION


def test_defaults_pass_and_are_those_of_the_parts() -> None:
    check_config(TrainConfig())
    assert TrainConfig().vgs_version == DEFAULT_VERSION


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("total_timesteps", 0, 1),
        ("n_envs", 0, 1),
        ("frame_stack", 0, 1),
        ("seed", -1, 0),
        ("checkpoint_every", -1, 0),
        ("keep_checkpoints", 0, 1),
        ("eval_every", -1, 0),
        ("eval_episodes", 0, 1),
        ("torch_threads", 0, 1),
    ],
)
def test_too_small_numbers_are_refused_and_the_least_is_not(name: str, value: int, least: int) -> None:
    option = "--" + name.replace("_", "-")
    with pytest.raises(UserInputError, match=rf"{option} {value} is too small; remedy: at least {least}"):
        check_config(replace(TrainConfig(), **{name: value}))
    check_config(replace(TrainConfig(), **{name: least}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2**32 - 8 + 1}, "--seed 4294967289 is too large"),
        ({"vgs_version": "2.9"}, "--vgs-version '2.9' is not known; remedy: off, 1.0, 2.0, 3.0, 3.1, 4.0"),
        ({"device": "gpu"}, "--device 'gpu' is not a device; remedy: auto, cpu, cuda"),
        ({"risk_measure": "cvar:25"}, "risk_measure='cvar:25'; remedy: 'mean', or 'cvar:' and a share"),
        (
            {"risk_measure": "cvar:0.5", "value_head": "scalar"},
            "needs a distribution of returns, .* remedy: value_head",
        ),
        ({"value_target": "mean"}, "value_target='mean'; remedy: 'sample' or 'distribution'"),
        ({"value_target": "distribution", "value_head": "scalar"}, "value_target='distribution' needs a critic"),
        ({"on_change": "restart"}, "on_change 'restart': 'restart' is no response; did you mean 'restart-head'"),
        ({"change_kwargs": {"alpha": 0.01}}, "change_kwargs 'alpha': on_change 'none' has no such argument"),
    ],
)
def test_other_values_that_cannot_be_used(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        check_config(replace(TrainConfig(), **changes))


def test_a_missing_gpu_is_refused_and_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserInputError, match="--device 'cuda:0': torch sees no CUDA device here; remedy: cpu or auto"):
        check_config(replace(TrainConfig(), device="cuda:0"))
