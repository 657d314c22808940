"""Every step equals a float64 reference of the formulas, on inputs that tell wrong variants from the right one."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch as th

from .descriptions import (
    DESCRIPTIONS,
    NORMALIZATIONS,
    Description,
    both_paths,
    every_noise,
    every_normalization,
    every_optimizer,
)
from .reference import Array, Mutation, Reference, ReferenceTensor

pytestmark = pytest.mark.usefixtures("each_computation")

TOLERANCE = 1e-10
MARGIN = 1e-3
N_STEPS = 7
# Two groups that differ in every option; () is a 0-d tensor, (0, 3) an empty one.
SHAPES = [[(3, 4), (4,), ()], [(2, 3, 2), (0, 3), (5,)]]
LATE = (1, 2)  # group and index of a tensor whose first gradient comes in step 3
PAUSED = (0, 1)  # group and index of a tensor without gradient in step 4
OPTIONS: list[dict[str, Any]] = [
    {"lr": 0.05, "weight_decay": 0.3, "beta_utility": 0.9, "sigma": 0.4},
    {"lr": 0.02, "weight_decay": 1.0, "beta_utility": 0.6, "sigma": 0.2},
]
ADAM_OPTIONS: list[dict[str, Any]] = [{"betas": (0.9, 0.99), "eps": 1e-2}, {"betas": (0.7, 0.95), "eps": 1e-5}]


class Scenario:
    """The same parameters, gradients and noise for an optimizer and for the reference."""

    def __init__(self, description: Description, noise: str, *, noisy: bool) -> None:
        self.description = description
        self.adaptive = "exp_avg" in description.state
        rng = np.random.default_rng(3)
        self.start = [[rng.normal(0.5, 1.0, shape) for shape in shapes] for shapes in SHAPES]
        self.grads = [[[rng.normal(0.2, 1.0, shape) for shape in shapes] for shapes in SHAPES] for _ in range(N_STEPS)]
        self.options = [
            {**options, **(adam if self.adaptive else {}), "noise": noise, "sigma": options["sigma"] if noisy else 0.0}
            for options, adam in zip(OPTIONS, ADAM_OPTIONS, strict=True)
        ]

    def grad(self, step: int, group: int, index: int) -> Array | None:
        absent = ((group, index) == LATE and step < 3) or ((group, index) == PAUSED and step == 4)
        return None if absent else self.grads[step][group][index]

    def unit_noise(self, step: int, generator: th.Generator) -> list[Array | None]:
        """Draws from N(0, 1), in the documented order: one flat draw per group and number of steps taken before."""
        noise: list[Array | None] = []
        for group, options in enumerate(self.options):
            of_group: list[Array | None] = [None] * len(SHAPES[group])
            noise_of: dict[int, list[int]] = {}
            for index in range(len(SHAPES[group])):
                if self.grad(step, group, index) is not None and options["sigma"] != 0:
                    taken = sum(self.grad(earlier, group, index) is not None for earlier in range(step))
                    noise_of.setdefault(taken, []).append(index)
            for indices in noise_of.values():
                sizes = [int(np.prod(SHAPES[group][index])) for index in indices]
                flat = th.empty(sum(sizes), dtype=th.float64).normal_(generator=generator).numpy()
                for index, piece in zip(indices, np.split(flat, np.cumsum(sizes)[:-1]), strict=True):
                    of_group[index] = piece.reshape(SHAPES[group][index])
            noise += of_group
        return noise

    def run_reference(self, normalization: str, mutation: Mutation | None = None) -> list[list[Array]]:
        """Parameters after every step."""
        tensors = [
            ReferenceTensor(p, options) for group, options in zip(self.start, self.options, strict=True) for p in group
        ]
        reference = Reference(tensors, adaptive=self.adaptive, normalization=normalization, mutation=mutation)
        generator = th.Generator().manual_seed(11)
        history = []
        for step in range(N_STEPS):
            grads = [self.grad(step, group, i) for group, shapes in enumerate(SHAPES) for i in range(len(shapes))]
            reference.step(grads, self.unit_noise(step, generator))
            history.append([tensor.p for tensor in tensors])
        return history

    def run_optimizer(self, normalization: str, *, foreach: bool, maximize: bool = False) -> list[list[Array]]:
        """Parameters after every step."""
        params = [[th.nn.Parameter(th.tensor(p)) for p in group] for group in self.start]
        optimizer = self.description.optimizer(
            [{"params": group, **options} for group, options in zip(params, self.options, strict=True)],
            utility_normalization=normalization,
            foreach=foreach,
            generator=th.Generator().manual_seed(11),
            maximize=maximize,
        )
        history = []
        for step in range(N_STEPS):
            for group, group_params in enumerate(params):
                for i, param in enumerate(group_params):
                    grad = self.grad(step, group, i)
                    param.grad = None if grad is None else th.tensor(-grad if maximize else grad)
            optimizer.step()
            history.append([param.detach().numpy().copy() for group_params in params for param in group_params])
        return history


def distance(a: list[list[Array]], b: list[list[Array]]) -> float:
    """Largest difference of any element in any step."""
    return max(
        float(np.max(np.abs(x - y), initial=0.0))
        for step_a, step_b in zip(a, b, strict=True)
        for x, y in zip(step_a, step_b, strict=True)
    )


@every_optimizer
@every_normalization
@every_noise
@both_paths
@pytest.mark.parametrize("noisy", [False, True], ids=["sigma=0", "sigma>0"])
def test_steps_equal_the_reference(
    description: Description, normalization: str, noise: str, foreach: bool, noisy: bool
) -> None:
    scenario = Scenario(description, noise, noisy=noisy)
    expected = scenario.run_reference(normalization)
    assert distance(scenario.run_optimizer(normalization, foreach=foreach), expected) < TOLERANCE


@every_optimizer
@both_paths
def test_maximize_is_minimizing_the_negative(description: Description, foreach: bool) -> None:
    scenario = Scenario(description, "relative", noisy=True)
    expected = scenario.run_reference("minmax")
    assert distance(scenario.run_optimizer("minmax", foreach=foreach, maximize=True), expected) < TOLERANCE


def mutants() -> list[Any]:
    """Every wrong variant with every optimizer and normalization in which it is one."""
    cases = []
    for description in DESCRIPTIONS:
        for normalization in NORMALIZATIONS:
            for mutation in get_args(Mutation):
                adaptive_only = mutation in ("moments_not_bias_corrected", "noise_on_raw_gradient_scale")
                if adaptive_only and "exp_avg" not in description.state:
                    continue
                case_id = f"{description.name}-{normalization}-{mutation}"
                cases.append(pytest.param(description, normalization, mutation, id=case_id))
    return cases


@pytest.mark.parametrize(("description", "normalization", "mutation"), mutants())
def test_inputs_tell_a_wrong_variant_from_the_right_one(
    description: Description, normalization: str, mutation: Mutation
) -> None:
    """Otherwise the agreement above would prove nothing about the formula that the variant breaks."""
    scenario = Scenario(description, "relative", noisy=True)
    assert distance(scenario.run_reference(normalization, mutation), scenario.run_reference(normalization)) > MARGIN
