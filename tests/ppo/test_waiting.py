"""How often an update waits for the device: once per minibatch, to skip what is not finite."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch as th

from helpers import without_loops
from sb3_vgs_ppo.ppo.minibatch_log import MinibatchLog
from sb3_vgs_ppo.ppo.minibatches import minibatches

from .test_dppo import HEADS, small_model

HOST_READS = ("item", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy", "tolist", "nonzero")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_host_reads_one_number_per_minibatch(env_id: str, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """VGS is off, and so are loops: on a CPU both compute on arrays over a tensor's memory, and wait for nothing."""
    model = small_model(env_id, vgs_version=None, ent_coef=0.01, policy_kwargs=HEADS[head])
    model.learn(64)
    evaluate, gradients = model._choose_evaluation(list(model.policy.parameters()))
    reads: Counter[str] = Counter()
    for name in HOST_READS:
        original = getattr(th.Tensor, name)

        def counted(self: th.Tensor, *args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
            reads[name] += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(th.Tensor, name, counted)
    with without_loops():
        model._train_epoch(evaluate, gradients, model.policy.optimizer.step, MinibatchLog())
    assert reads == {"__float__": 2}


@pytest.mark.skipif(not th.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("version", [None, "1.0", "2.0", "3.0", "4.0"])
@pytest.mark.parametrize("head", HEADS)
def test_nothing_else_waits_for_a_gpu(head: str, version: str | None) -> None:
    kwargs = {"vgs_version": version, "vgs_kwargs": {"warmup_steps": 1} if version else None}
    model = small_model("Pendulum-v1", device="cuda", policy_kwargs=HEADS[head], **kwargs)
    model.learn(128)  # what is allocated once, is
    evaluate, gradients = model._choose_evaluation(list(model.policy.parameters()))
    batches = list(minibatches(model.rollout_buffer, 32))
    log = MinibatchLog()
    th.cuda.set_sync_debug_mode("error")
    try:
        for minibatch in batches:
            _, backward = evaluate(minibatch, log)
            gradients.clear()
            backward()
            if model.vgs is not None:
                model.vgs.observe(gradients.flat)
                model.vgs.scale(gradients.flat)
            gradients.clip_(gradients.norm(), 0.5)
            model.policy.optimizer.step()
            if model.vgs is not None:
                model.vgs.step()
    finally:
        th.cuda.set_sync_debug_mode("default")
    assert th.isfinite(th.nn.utils.parameters_to_vector(model.policy.parameters())).all()
