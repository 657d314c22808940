"""Value heads: one suite over all of them by description, then what is particular to each."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_vgs_ppo.distributional import CategoricalHead, QuantileHead, ScalarHead, ValueHead, make_value_head
from sb3_vgs_ppo.errors import UserInputError

LATENT_DIM = 6
BATCH = 5


@dataclass(frozen=True)
class Case:
    name: str
    n_outputs: int
    metrics: frozenset[str]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def build(self) -> ValueHead:
        """A head with non-trivial weights."""
        th.manual_seed(0)
        head = make_value_head(self.name, LATENT_DIM, **self.kwargs)
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.1)
        return head


CLIPPED = frozenset({"value_std", "value_target_clipped"})
CASES = {
    "scalar": Case("scalar", 1, frozenset({"value_std"})),
    "quantile": Case("quantile", 32, frozenset({"value_std", "quantile_crossing"})),
    "one quantile": Case("quantile", 1, frozenset({"value_std", "quantile_crossing"}), {"n_quantiles": 1}),
    "pinball": Case("quantile", 4, frozenset({"value_std", "quantile_crossing"}), {"n_quantiles": 4, "huber_kappa": 0}),
    "symlog": Case("categorical", 101, CLIPPED),
    "none": Case("categorical", 21, CLIPPED, {"n_atoms": 21, "value_transform": "none", "v_min": -2.0, "v_max": 5.0}),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    assert isinstance(request.param, Case)
    return request.param


@pytest.fixture
def latent() -> th.Tensor:
    return th.randn(BATCH, LATENT_DIM, generator=th.Generator().manual_seed(1))


def test_shapes(case: Case, latent: th.Tensor) -> None:
    head = case.build()
    predictions = head.predict(latent)
    assert predictions.shape == (BATCH, case.n_outputs)
    assert head.mean(predictions).shape == (BATCH, 1)
    assert head.std(predictions).shape == (BATCH,)
    assert head.loss(predictions, th.ones(BATCH)).shape == ()
    assert th.equal(head(latent), head.mean(predictions))


def test_state_dict_is_that_of_a_linear_layer(case: Case, latent: th.Tensor) -> None:
    head = case.build()
    assert {key: tuple(value.shape) for key, value in head.state_dict().items()} == {
        "weight": (case.n_outputs, LATENT_DIM),
        "bias": (case.n_outputs,),
    }
    fresh = make_value_head(case.name, LATENT_DIM, **case.kwargs)
    fresh.load_state_dict(head.state_dict())
    assert th.equal(fresh(latent), head(latent))
    assert th.equal(copy.deepcopy(head)(latent), head(latent))


def test_loss_is_a_mean_over_the_batch(case: Case, latent: th.Tensor) -> None:
    head = case.build()
    predictions, targets = head.predict(latent), th.tensor([0.3, -1.2, 4.0, 0.0, 2.5])
    single = [head.loss(predictions[i : i + 1], targets[i : i + 1]) for i in range(BATCH)]
    th.testing.assert_close(head.loss(predictions, targets), th.stack(single).mean())


def test_every_parameter_learns(case: Case, latent: th.Tensor) -> None:
    head = case.build()
    targets = th.tensor([0.3, -1.2, 4.0, 0.0, 2.5])
    optimizer = th.optim.Adam(head.parameters(), lr=0.1)
    before = (head(latent).flatten() - targets).abs().mean().item()
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(head.predict(latent), targets).backward()
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in head.parameters())
        optimizer.step()
    assert (head(latent).flatten() - targets).abs().mean().item() < 0.1 * before


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_target_gives_non_finite_loss(case: Case, latent: th.Tensor, value: float) -> None:
    head = case.build()
    targets = th.tensor([0.3, -1.2, value, 0.0, 2.5])
    assert not bool(head.loss(head.predict(latent), targets).isfinite())


def test_metrics_are_detached_scalars(case: Case, latent: th.Tensor) -> None:
    head = case.build()
    metrics = head.metrics(head.predict(latent), th.ones(BATCH))
    assert metrics.keys() == case.metrics
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    assert metrics["value_std"].item() == pytest.approx(head.std(head.predict(latent)).mean().item())


def test_nothing_waits_for_the_device(case: Case) -> None:
    # A meta tensor has no values: whatever needs one on the host raises.
    head = case.build().to("meta")
    predictions = head.predict(th.zeros(BATCH, LATENT_DIM, device="meta"))
    targets = th.zeros(BATCH, device="meta")
    head.loss(predictions, targets).backward()
    assert head.mean(predictions).is_meta
    assert all(value.is_meta for value in head.metrics(predictions, targets).values())


def test_scalar_head_is_sb3s_linear_layer_bit_for_bit(latent: th.Tensor) -> None:
    th.manual_seed(0)
    linear = nn.Linear(LATENT_DIM, 1)
    rng_state = th.get_rng_state()
    head = make_value_head("scalar", linear)
    assert isinstance(head, ScalarHead)
    assert th.equal(th.get_rng_state(), rng_state)  # or all later samples would differ from SB3's
    assert head.weight is linear.weight
    assert head.bias is linear.bias
    assert list(head.state_dict()) == list(linear.state_dict())

    targets = th.tensor([0.3, -1.2, 4.0, 0.0, 2.5])
    expected_loss = F.mse_loss(targets, linear(latent).flatten())
    expected = th.autograd.grad(expected_loss, [linear.weight, linear.bias])
    loss = head.loss(head.predict(latent), targets)
    assert th.equal(head(latent), linear(latent))
    assert th.equal(loss, expected_loss)
    assert all(map(th.equal, th.autograd.grad(loss, [head.weight, head.bias]), expected))


def test_scalar_head_refuses_a_layer_with_several_outputs() -> None:
    with pytest.raises(ValueError, match="out_features=3"):
        ScalarHead.from_linear(nn.Linear(LATENT_DIM, 3))


def test_quantile_head_by_hand() -> None:
    head = QuantileHead(LATENT_DIM, n_quantiles=4)
    quantiles = th.tensor([[0.0, 2.0, 1.0, 5.0]])
    assert head.mean(quantiles).item() == 2.0
    # Deviations −2, 0, −1, 3: √(14 / 4), not √(14 / 3).
    assert head.std(quantiles).item() == pytest.approx(math.sqrt(3.5))
    assert head.metrics(quantiles, th.zeros(1))["quantile_crossing"].item() == pytest.approx(1 / 3)
    assert th.equal(head.distribution(quantiles), quantiles)


def test_quantile_head_passes_kappa_on() -> None:
    # One quantile, u = 3: ½·(κ·(3 − κ/2))/κ = 1.25 for κ = 1 and ½·(½·9)/6 = 0.375 for κ = 6.
    losses = [
        QuantileHead(LATENT_DIM, n_quantiles=1, huber_kappa=kappa).loss(th.zeros(1, 1), th.tensor([3.0])).item()
        for kappa in (1.0, 6.0)
    ]
    assert losses == pytest.approx([1.25, 0.375])


def test_mean_of_32_quantiles_leaves_out_one_percent_of_an_exponential() -> None:
    head = QuantileHead(LATENT_DIM)
    assert head.mean(-th.log1p(-head.taus).unsqueeze(0)).item() == pytest.approx(1 - 0.011, abs=5e-4)


def test_quantile_head_starts_as_sb3_starts_its_value_net() -> None:
    th.manual_seed(0)
    head = QuantileHead(LATENT_DIM, n_quantiles=4)
    drawn = head.weight.detach().clone()
    head.init_weights(ortho=False)
    assert th.equal(head.weight, drawn)
    head.init_weights(ortho=True)
    th.testing.assert_close(head.weight @ head.weight.T, th.eye(4))
    assert bool((head.bias == 0).all())


@pytest.mark.parametrize("ortho", [True, False])
def test_categorical_head_starts_at_its_centre_in_every_state(latent: th.Tensor, ortho: bool) -> None:
    symlog = CategoricalHead(LATENT_DIM)
    linear = CategoricalHead(LATENT_DIM, value_transform="none", v_min=-2.0, v_max=12.0)
    for head in (symlog, linear):
        head.init_weights(ortho=ortho)
    assert bool((symlog(latent) == 0).all())
    assert bool((linear(latent) == 5).all())


def test_categorical_distribution_and_loss_by_hand(latent: th.Tensor) -> None:
    head = CategoricalHead(LATENT_DIM, n_atoms=3)  # atoms −A, 0, A with A = e²⁰ − 1, prior 1/(1+A), 1, 1/(1+A)
    top = math.e**20 - 1
    logits = head.predict(latent[:1])
    atoms, probabilities = head.distribution(logits)
    th.testing.assert_close(atoms, th.tensor([-top, 0.0, top]))
    th.testing.assert_close(probabilities, th.tensor([[math.e**-20, 1.0, math.e**-20]]), rtol=1e-5, atol=0)
    # A quarter of the way to A: cross-entropy ¾·0 + ¼·20.
    assert head.loss(logits, th.tensor([0.25 * top])).item() == pytest.approx(5.0, rel=1e-5)


def test_categorical_metrics_count_clipped_targets() -> None:
    head = CategoricalHead(LATENT_DIM, value_transform="none", v_min=-1.0, v_max=1.0)
    targets = th.tensor([-1.0, 1.0, 1.01, 0.0, -3.0, 2.0, 0.5, 0.1])
    assert head.metrics(th.zeros(8, 101), targets)["value_target_clipped"].item() == 3 / 8


def fit_exponential(head: CategoricalHead) -> th.Tensor:
    """Fit one state's returns, exponential with mean 10, from their 2,000 equally likely values; raw predictions."""
    returns = -10 * th.log1p(-(th.arange(2000) + 0.5) / 2000)
    optimizer = th.optim.Adam(head.parameters(), lr=0.1)
    latent = th.ones(1, LATENT_DIM)
    for _ in range(400):
        optimizer.zero_grad()
        head.loss(head.predict(latent).expand(2000, -1), returns).backward()
        optimizer.step()
    return head.predict(latent).detach()


def test_symlog_head_recovers_the_mean_of_a_skewed_distribution() -> None:
    head = CategoricalHead(LATENT_DIM)
    predictions = fit_exponential(head)
    assert head.mean(predictions).item() == pytest.approx(10, rel=0.02)  # the median is 6.9


def test_hl_gauss_head_recovers_the_shape_of_a_skewed_distribution() -> None:
    head = CategoricalHead(LATENT_DIM, value_transform="none", v_min=0.0, v_max=94.0)  # bins of width 1
    predictions = fit_exponential(head)
    assert head.mean(predictions).item() == pytest.approx(10, rel=0.01)
    atoms, probabilities = head.distribution(predictions)
    # P(return ≤ z + ½) = 1 − exp(−(z + ½) / 10); the Gaussian of width ¾ blurs it by less than 0.01 from z = 3 on.
    cdf, inner = probabilities.flatten().cumsum(0), slice(6, None)
    th.testing.assert_close(cdf[inner], 1 - th.exp(-(atoms[inner] + 0.5) / 10), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("gaussian", {}, r"unknown value_head='gaussian'.*'scalar', 'quantile', 'categorical'"),
        ("scalar", {"n_quantiles": 8}, r"'scalar' does not use n_quantiles=8; .*no arguments"),
        ("quantile", {"n_atoms": 51, "v_min": 0.0}, r"'quantile' does not use n_atoms=51, v_min=0\.0; .*huber_kappa"),
        ("categorical", {"huber_kappa": 1.0}, r"'categorical' does not use huber_kappa=1\.0"),
        ("categorical", {"latent_dim": 3}, r"'categorical' does not use latent_dim=3"),
        ("quantile", {"n_quantiles": 0}, r"n_quantiles=0 is not an integer of at least 1"),
        ("quantile", {"n_quantiles": 3.5}, r"n_quantiles=3\.5 is not an integer"),
        ("quantile", {"huber_kappa": -0.1}, r"huber_kappa=-0\.1 is not a finite number"),
        ("quantile", {"huber_kappa": math.nan}, r"huber_kappa=nan"),
        ("categorical", {"value_transform": "none"}, r"needs v_min and v_max"),
    ],
)
def test_bad_arguments_are_refused(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        make_value_head(name, LATENT_DIM, **kwargs)


def test_an_encoded_distribution_keeps_its_mean(case: Case) -> None:
    atoms = 2.0 * th.rand(BATCH, 37, generator=th.Generator().manual_seed(2)) ** 2 + 1.0
    encoded = case.build().encode(atoms)
    means = {
        "scalar": lambda: encoded,
        "quantile": lambda: encoded.mean(dim=1),
        "categorical": lambda: (encoded * case.build().support.atoms).sum(dim=1),
    }[case.name]()
    th.testing.assert_close(means, atoms.mean(dim=1))


def test_a_critic_of_all_pairs_by_hand() -> None:
    """
    Quantiles 0 and 2 at τ = ¼ and ¾, target atoms 1 and 4, κ = 0: errors u = 1, 4 with weight ¼, and −1 with ¼, 2
    with ¾: (¼ + 1 + ¼ + 3/2) / 4.
    """
    head = make_value_head("quantile", LATENT_DIM, n_quantiles=2, huber_kappa=0)
    predictions, targets = th.tensor([[0.0, 2.0]]), th.tensor([[1.0, 4.0]])
    assert head.loss(predictions, targets).item() == pytest.approx(0.75)
    assert head.loss(predictions, targets.flip(1)).item() == pytest.approx(0.75)


def test_quantiles_of_a_distribution_are_learned_from_its_atoms() -> None:
    """
    Two states that look alike: the quantiles of the mixture of their targets, any number between the atoms where the
    distribution function is (k + ½) / 4.
    """
    head = make_value_head("quantile", 1, n_quantiles=4, huber_kappa=0)
    targets = th.tensor([[0.0, 1.0, 2.0, 3.0], [10.0, 11.0, 12.0, 13.0]])
    optimizer = th.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(1_000):
        optimizer.zero_grad()
        head.loss(head.predict(th.ones(2, 1)), targets).backward()
        optimizer.step()
    lower = th.tensor([0.0, 2.0, 10.0, 12.0])
    learned = head.predict(th.ones(1, 1))[0]
    assert ((learned > lower - 0.1) & (learned < lower + 1.1)).all()


@pytest.mark.parametrize("name", ["quantile", "categorical"])
def test_heads_take_the_number_of_inputs_from_sb3s_layer(name: str) -> None:
    assert make_value_head(name, nn.Linear(17, 1)).weight.shape[1] == 17


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("scalar", {}),
        ("quantile", {"n_quantiles": 5, "huber_kappa": 0.5}),
        ("categorical", {"n_atoms": 9}),
        ("categorical", {"n_atoms": 12, "value_transform": "none", "v_min": -1.0, "v_max": 2.0}),
    ],
)
def test_the_gradient_by_hand_is_autograds(name: str, kwargs: dict[str, Any]) -> None:
    generator = th.Generator().manual_seed(0)
    head = make_value_head(name, 3, **kwargs)
    predictions = head.predict(th.randn(6, 3, generator=generator)).detach()
    predictions = (predictions + th.randn(predictions.shape, generator=generator)).requires_grad_()
    targets = th.randn(6, generator=generator)
    expected = head.loss(predictions, targets)
    (0.7 * expected).backward()
    loss, gradient = head.loss_with_gradient(predictions.detach(), targets, 0.7)
    th.testing.assert_close(loss, expected.detach())
    th.testing.assert_close(gradient, predictions.grad)
    encoded = head.encode(th.randn(6, 20, generator=generator))
    predictions.grad = None
    expected = head.loss(predictions, encoded)
    expected.backward()
    loss, gradient = head.loss_with_gradient(predictions.detach(), encoded, 1.0)
    th.testing.assert_close(loss, expected.detach())
    th.testing.assert_close(gradient, predictions.grad)
    targets[2] = th.nan
    assert head.loss_with_gradient(predictions.detach(), targets, 0.7)[0].isnan()
