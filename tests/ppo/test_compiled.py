"""``compile=True``: the same updates as without it, up to rounding, or one warning that says why not."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from stable_baselines3.common.utils import LinearSchedule

from sb3_vgs_ppo.errors import CompileFallbackWarning
from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO

from .test_dppo import HEADS, SpacesEnv, small_model
from .test_mlp_loss import ACTIONS, BOX


def can_compile() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return th._dynamo.is_dynamo_supported()


needs_compiler = pytest.mark.skipif(not can_compile(), reason="no C++ compiler for torch.compile")


def model_of(action: str = "box", head: str = "quantile", **kwargs: Any) -> DistributionalPPO:
    """250 updates in a rollout of 64 steps, of which the last of an epoch has 14 steps instead of 25."""
    observation_space = copy.deepcopy(BOX)
    observation_space.seed(3)
    settings: dict[str, Any] = {
        "n_steps": 64,
        "batch_size": 25,
        "n_epochs": 84,
        "seed": 5,
        "device": "cpu",
        "learning_rate": 1e-4,
    }
    policy_kwargs = {"net_arch": [8], **HEADS[head], **kwargs.pop("policy_kwargs", {})}
    env = SpacesEnv(observation_space, ACTIONS[action])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of SB3, about the truncated minibatch
        return DistributionalPPO("MlpPolicy", env, policy_kwargs=policy_kwargs, **{**settings, **kwargs})


def weights(model: DistributionalPPO) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


def compare_with_eager(**kwargs: Any) -> None:
    changes, figures = [], []
    for compiled in (False, True):
        model = model_of(compile=compiled, **kwargs)
        start = weights(model)
        model.learn(64)
        changes.append(weights(model) - start)
        figures.append({k: v for k, v in model.logger.name_to_value.items() if k.startswith(("train/", "vgs/"))})
    assert changes[0].abs().max() > 1e-2, "it must have learned something for the agreement to mean anything"
    th.testing.assert_close(changes[1], changes[0], rtol=1e-2, atol=1e-3)
    assert figures[1] == pytest.approx(figures[0], rel=1e-2, abs=1e-3)


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace functions and run the graphs, which takes a second; no C++, which takes up to a minute."""
    compile_ = th.compile

    def trace(function: Any, options: dict[str, Any], **kwargs: Any) -> Any:
        return compile_(function, backend="aot_eager", **kwargs)

    monkeypatch.setattr(th, "compile", trace)
    th._dynamo.reset()


@pytest.fixture
def no_fallback(recwarn: pytest.WarningsRecorder) -> Any:
    yield
    assert not [str(w.message) for w in recwarn if issubclass(w.category, CompileFallbackWarning)]


PARTS = pytest.mark.parametrize(
    ("head", "action", "optimizer_class", "version", "placement"),
    [
        ("quantile", "box", AdaptiveUPGD, "3.0", "before_clip"),
        ("scalar", "box", th.optim.Adam, None, "before_clip"),
        # Half a minute each, most of it torch's tracing
        pytest.param("scalar", "discrete", UPGD, "1.0", "before_clip", marks=pytest.mark.slow),
        pytest.param("quantile", "discrete", AdaptiveUPGD, "4.0", "before_clip", marks=pytest.mark.slow),
        pytest.param("categorical", "box", AdaptiveUPGD, "2.0", "after_clip", marks=pytest.mark.slow),
        pytest.param("categorical-none", "discrete", th.optim.AdamW, "3.1", "before_clip", marks=pytest.mark.slow),
    ],
)


def compare_parts(head: str, action: str, optimizer_class: Any, version: str | None, placement: str) -> None:
    compare_with_eager(
        head=head,
        action=action,
        vgs_version=version,
        vgs_placement=placement,
        learning_rate=1e-3 if optimizer_class is UPGD else 1e-4,
        ent_coef=0.01 if head == "quantile" else 0.0,
        normalize_advantage=action == "box",
        policy_kwargs={"optimizer_class": optimizer_class},
    )


@PARTS
@pytest.mark.usefixtures("traced_only", "no_fallback")
def test_traced_updates_agree_with_eager_ones(
    head: str, action: str, optimizer_class: Any, version: str | None, placement: str
) -> None:
    compare_parts(head, action, optimizer_class, version, placement)


@pytest.mark.usefixtures("traced_only", "no_fallback")
def test_so_do_those_with_distributions_as_targets() -> None:
    compare_with_eager(value_target="distribution")


@needs_compiler
@pytest.mark.slow
@PARTS
@pytest.mark.usefixtures("no_fallback")
def test_compiled_updates_agree_with_eager_ones(
    head: str, action: str, optimizer_class: Any, version: str | None, placement: str
) -> None:
    compare_parts(head, action, optimizer_class, version, placement)


@pytest.mark.xfail(
    th.__version__ < "2.13", reason="older releases, 2.8 for one, trace anew for every value of a schedule"
)
@pytest.mark.usefixtures("traced_only", "no_fallback")
def test_schedules_and_further_updates_compile_nothing_anew_and_a_loaded_model_goes_on_exactly(tmp_path: Path) -> None:
    model = model_of(
        compile=True,
        n_epochs=2,
        learning_rate=LinearSchedule(1e-3, 1e-4, 1.0),
        clip_range=LinearSchedule(0.3, 0.1, 1.0),
    )
    model.learn(64)
    graphs = th._dynamo.utils.counters["stats"]["unique_graphs"]
    model.learn(128, reset_num_timesteps=False)
    assert graphs >= 1
    assert th._dynamo.utils.counters["stats"]["unique_graphs"] == graphs

    model.save(tmp_path / "model.zip")
    loaded = DistributionalPPO.load(tmp_path / "model.zip", device="cpu")
    assert loaded.compile is True
    loaded.rollout_buffer = model.rollout_buffer
    loaded.set_logger(model.logger)
    before = weights(model)
    for each in (model, loaded):
        each.set_random_seed(7)
        each.train()
    assert th.equal(weights(loaded), weights(model))
    assert not th.equal(weights(model), before)


FALLBACKS = {
    "gSDE": ({"env": "Pendulum-v1", "use_sde": True}, "needs autograd"),
    "activation": ({"policy_kwargs": {"activation_fn": th.nn.GELU}}, "needs autograd"),
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_what_cannot_be_compiled_says_so_once_and_learns(case: str) -> None:
    kwargs, reason = FALLBACKS[case]
    results = []
    for compiled in (True, False):
        model = small_model(compile=compiled, **kwargs)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.learn(128)
        said = [str(w.message) for w in caught if w.category is CompileFallbackWarning]
        assert len(said) == compiled
        assert all(reason in message for message in said)
        results.append(weights(model))
    assert th.equal(*results)


def no_compiler_for_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    th._dynamo.reset()


def compilation_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand a long story")

    monkeypatch.setattr(th, "compile", refuse)


@pytest.mark.parametrize("break_it", [compilation_fails, pytest.param(no_compiler_for_torch, marks=pytest.mark.slow)])
def test_without_a_compiler_it_says_so_once_and_learns(
    break_it: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    break_it(monkeypatch, tmp_path)
    model = small_model(compile=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.learn(128)
    said = [str(w.message) for w in caught if w.category is CompileFallbackWarning]
    assert len(said) == 1
    assert "the loss cannot be compiled here" in said[0]
    assert "InvalidCxxCompiler: No working C++ compiler found" in said[0]
    assert th.equal(weights(model), weights(small_model().learn(128)))


def test_it_is_an_attribute_that_other_files_lack(tmp_path: Path) -> None:
    model = small_model(gym.make("CartPole-v1"))
    model.save(tmp_path / "model.zip")
    assert DistributionalPPO.load(tmp_path / "model.zip").compile is False
    assert DistributionalPPO.load(tmp_path / "model.zip", compile=True).compile is True
