"""One gather per epoch yields what SB3's buffers yield minibatch by minibatch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from sb3_vgs_ppo.ppo import minibatches as module
from sb3_vgs_ppo.ppo.minibatches import minibatches

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
DICT = spaces.Dict({"a": BOX, "b": spaces.Discrete(4)})


class OwnOrder(RolloutBuffer):
    """Yields its minibatches in an order of its own."""

    def get(self, batch_size: int | None = None) -> Any:
        assert batch_size is not None
        np.random.seed(0)  # noqa: NPY002 - SB3's generator
        yield from super().get(batch_size)


def full(buffer_class: type[Any], observation_space: spaces.Space[Any]) -> Any:
    buffer = buffer_class(10, observation_space, spaces.Discrete(3), device="cpu", n_envs=2)
    numbers = np.random.default_rng(0)
    for _ in range(10):
        observation = observation_space.sample()
        if isinstance(observation, dict):
            observation = {name: np.stack([value, value]) for name, value in observation.items()}
        else:
            observation = numbers.normal(size=(2, 3))
        values, log_probs = th.as_tensor(numbers.normal(size=(2, 2)), dtype=th.float32)
        action = numbers.integers(3, size=2)
        buffer.add(observation, action, numbers.normal(size=2), np.zeros(2), values, log_probs)
    buffer.compute_returns_and_advantage(values, np.zeros(2))
    return buffer


def flat(samples: Any) -> list[th.Tensor]:
    observations = samples.observations
    parts = list(observations.values()) if isinstance(observations, dict) else [observations]
    return [*parts, *samples[1:6]]


@pytest.mark.parametrize("large_rollout", [2**26, 0], ids=["at once", "large"])
@pytest.mark.parametrize(("buffer_class", "space"), [(RolloutBuffer, BOX), (DictRolloutBuffer, DICT), (OwnOrder, BOX)])
def test_samples_and_random_numbers_are_sb3s(
    buffer_class: type[Any], space: Any, large_rollout: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE_ROLLOUT", large_rollout)
    space.seed(0)
    buffer = full(buffer_class, space)
    results = []
    for epoch in (minibatches(buffer, 8), buffer.get(8)):
        np.random.seed(4)  # noqa: NPY002 - SB3's generator
        results.append((list(epoch), np.random.random()))  # noqa: NPY002
    (ours, our_next), (theirs, their_next) = results
    assert our_next == their_next
    assert [len(minibatch.advantages) for minibatch in ours] == [8, 8, 4]
    for mine, expected in zip(ours, theirs, strict=True):
        assert type(mine) is type(expected)
        for one, other in zip(flat(mine), flat(expected), strict=True):
            assert th.equal(one, other)
            assert one.dtype == other.dtype
