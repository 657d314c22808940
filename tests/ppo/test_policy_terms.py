"""The policy's part of the loss: compiled loops against the operations that equal autograd's."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from helpers import without_loops
from sb3_vgs_ppo.ppo import policy_terms as module
from sb3_vgs_ppo.ppo.policy_terms import Coefficients, PolicyTerms, policy_terms, policy_terms_by_loops

pytest.importorskip("numba", reason="numba is not installed: pip install 'sb3-vgs-ppo[fast]'")


def case(kind: str, batch: int, k: int, scale: float = 1.0) -> tuple[th.Tensor, th.Tensor | None, RolloutBufferSamples]:
    """Outputs, log_std and samples of a policy that has moved away from the one that acted."""
    generator = th.Generator().manual_seed(batch + k)

    def normal(*shape: int) -> th.Tensor:
        return th.randn(shape, generator=generator)

    outputs = scale * normal(batch, k)
    if kind == "box":
        log_std, actions = 0.3 * normal(k), outputs + normal(batch, k)
        log_prob = th.distributions.Normal(outputs, log_std.exp()).log_prob(actions).sum(1)
    else:
        log_std, actions = None, th.randint(k, (batch, 1), generator=generator)
        log_prob = outputs.log_softmax(1).gather(1, actions).squeeze(1)
    old_log_prob = log_prob + 0.3 * normal(batch)
    return (
        outputs,
        log_std,
        RolloutBufferSamples(th.empty(0), actions, th.empty(0), old_log_prob, normal(batch), th.empty(0)),
    )


def both(*arguments: Any) -> tuple[PolicyTerms, PolicyTerms]:
    return policy_terms_by_loops(*arguments), policy_terms(*arguments)


def assert_alike(mine: PolicyTerms, other: PolicyTerms, atol: float = 1e-5) -> None:
    for value, expected in zip((*mine[:3], *mine.backward()), (*other[:3], *other.backward()), strict=True):
        th.testing.assert_close(value, expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("kind", ["box", "discrete"])
@pytest.mark.parametrize(("batch", "k"), [(64, 6), (1, 3), (7, 1)])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("ent_coef", [None, 0.02])
def test_they_are_alike(kind: str, batch: int, k: int, normalize: bool, ent_coef: float | None) -> None:
    coefficient = None if ent_coef is None else th.tensor(ent_coef)
    mine, other = both(*case(kind, batch, k), Coefficients(0.2, th.tensor(0.5), coefficient), normalize)
    assert_alike(mine, other)
    assert mine.log_ratio.dtype == mine.loss.dtype == th.float32
    gradient, _ = mine.backward()
    assert (gradient.abs().sum(1) == 0).any() or batch == 1 or ent_coef or k == 1, "some samples must be clipped"


def test_certain_actions_are_alike() -> None:
    """Probabilities of 0 and 1 in float32."""
    outputs, log_std, samples = case("discrete", 16, 3, scale=300.0)
    coefficients = Coefficients(0.2, th.tensor(0.5), th.tensor(0.02))
    mine, other = both(outputs, log_std, samples, coefficients, True)
    assert_alike(mine, other, atol=1e-4)  # float32 rounds logits of 300 to 3e-5
    outputs[0, 1] = -th.inf
    samples.actions[0] = 0
    loss, entropy_loss, *_ = policy_terms_by_loops(outputs, log_std, samples, coefficients, True)
    assert th.isfinite(loss)
    assert th.isfinite(entropy_loss)


@pytest.mark.parametrize("kind", ["box", "discrete"])
@pytest.mark.parametrize("where", ["outputs", "advantages", "old_log_prob"])
def test_nan_makes_the_loss_nan(kind: str, where: str) -> None:
    outputs, log_std, samples = case(kind, 8, 3)
    (outputs if where == "outputs" else getattr(samples, where))[3] = th.nan
    mine, other = both(outputs, log_std, samples, Coefficients(0.2, th.tensor(0.5), None), True)
    assert other.loss.isnan()
    assert mine.loss.isnan()


def test_many_outputs_are_left_to_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(module, "policy_terms", lambda *_: called.append("operations"))
    arguments = Coefficients(0.2, th.tensor(0.5), None), True
    policy_terms_by_loops(*case("discrete", 64, 64), *arguments)
    assert called == []
    policy_terms_by_loops(*case("discrete", 64, 65), *arguments)
    outputs, log_std, samples = case("discrete", 4, 3)
    policy_terms_by_loops(outputs.double(), log_std, samples, *arguments)
    with without_loops():
        policy_terms_by_loops(outputs, log_std, samples, *arguments)
    assert called == ["operations"] * 3
