"""Files of strangers: refused with file, member and reason, before memory is taken, and never executed."""

from __future__ import annotations

import base64
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from helpers import Payload
from sb3_vgs_ppo import load_checkpoint
from sb3_vgs_ppo.checkpoint import Limits, dump_tensors, load_tensors, read_archive
from sb3_vgs_ppo.checkpoint.vec_normalize import VEC_NORMALIZE
from sb3_vgs_ppo.errors import CheckpointError
from sb3_vgs_ppo.ppo import DistributionalPPO

Rewrite = Callable[..., Path]


def set_in(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        for name in path[:-1]:
            values = values[name]
        values[path[-1]] = to

    return change


HUGE = 10**12
HOSTILE_MANIFESTS = {
    "another algorithm": (set_in("algorithm", to="PPO"), "algorithm: 'PPO' is not DistributionalPPO"),
    "a class that is no policy": (
        set_in("policy_class", to={"$class": "torch.nn.modules.activation.Tanh"}),
        "policy_class: .*does not derive from BasePolicy",
    ),
    "a policy of SB3": (
        set_in("policy_class", to={"$class": "stable_baselines3.common.policies.ActorCriticPolicy"}),
        "policy_class: .*is not a policy of DistributionalPPO",
    ),
    "a function": (
        set_in("policy_kwargs", "activation_fn", to={"$class": "os.system"}),
        r"policy_kwargs\.activation_fn: 'os.system' is not a class of",
    ),
    "an extractor that is none": (
        set_in("policy_kwargs", "features_extractor_class", to={"$class": "torch.nn.modules.linear.Linear"}),
        "features_extractor_class: .*does not derive from BaseFeaturesExtractor",
    ),
    "wide layers": (
        set_in("policy_kwargs", "net_arch", to=[HUGE]),
        r"policy\.pth: .*\(2, 8\).*ask for \(2, 1000000000000\)",
    ),
    "many layers": (set_in("policy_kwargs", "net_arch", to=[8] * 100_000), "net_arch: 100000 layers"),
    "no layers": (set_in("policy_kwargs", "net_arch", to=[]), r"policy\.pth: action_net\.weight: \(2, 8\)"),
    "layers of no kind": (set_in("policy_kwargs", "net_arch", to=7), "policy_kwargs: .*int"),
    "many quantiles": (set_in("policy_kwargs", "n_quantiles", to=HUGE), "n_quantiles: 1000000000000, but .* 4 outputs"),
    "another head": (
        lambda values: values["policy_kwargs"].update(value_head="categorical", n_quantiles=None, n_atoms=HUGE),
        "n_atoms: 1000000000000",
    ),
    "the default number of quantiles": (
        set_in("policy_kwargs", to={"net_arch": [8]}),
        r"policy\.pth: value_net\.bias: \(4,\);.* ask for \(32,\)",
    ),
    "an argument that is none": (set_in("policy_kwargs", "surprise", to=1), "policy_kwargs: .*surprise"),
    "long rollouts": (set_in("arguments", "n_steps", to=2**31 - 1), r"n_steps: a rollout of .* bytes, more than"),
    "many environments": (set_in("attributes", "n_envs", to=2**31 - 1), r"n_steps: a rollout of .* bytes, more than"),
    "negative steps": (set_in("arguments", "n_steps", to=-1), "n_steps: -1; an integer of at least 1 expected"),
    "a text for a number": (set_in("arguments", "gamma", to="0.9"), "gamma: '0.9'; a number expected"),
    "nan": (set_in("arguments", "ent_coef", to={"$float": "nan"}), "ent_coef: nan; a number expected"),
    "a number for a schedule": (set_in("arguments", "clip_range", to="x"), "clip_range: 'x'; a number or a schedule"),
    "a buffer of another kind": (
        set_in("arguments", "rollout_buffer_class", to={"$class": "stable_baselines3.common.buffers.ReplayBuffer"}),
        "rollout_buffer_class: .*a class of rollout buffers",
    ),
    "an argument of nobody": (set_in("arguments", "surprise", to=1), "surprise"),
    "an unknown measure": (set_in("arguments", "vgs_version", to="9.9"), "9.9"),
    "settings out of range": (set_in("arguments", "vgs_kwargs", to={"beta": 2}), "beta must be"),
    "many actions": (
        set_in("action_space", to={"$space": "Discrete", "n": HUGE, "start": 0, "dtype": "int64"}),
        r"policy\.pth: action_net\.bias: \(2,\).*\(1000000000000,\)",
    ),
    "binary actions of any size": (
        set_in("action_space", to={"$space": "MultiBinary", "n": HUGE}),
        "n_steps: a rollout of",
    ),
    "many observations": (
        set_in("observation_space", to={"$space": "MultiBinary", "n": 10**6}),
        r"policy\.pth: mlp_extractor.*\(8, 4\)",
    ),
    "an attribute of the wrong kind": (set_in("attributes", "_n_updates", to="many"), "_n_updates: 'many'"),
    "an optimizer's argument": (
        set_in("policy_kwargs", "optimizer_kwargs", to={"betas": "ab"}),
        "manifest.json",
    ),
}


class TestHostileFiles:
    @pytest.mark.parametrize("name", HOSTILE_MANIFESTS)
    def test_a_manifest_that_lies_is_refused(
        self, name: str, agents: dict[str, Path], tmp_path: Path, rewrite: Rewrite
    ) -> None:
        change, message = HOSTILE_MANIFESTS[name]
        path = rewrite(agents["quantile"], tmp_path / "hostile.zip", manifest=change)
        with pytest.raises(CheckpointError, match=rf"(?s)^{path}: .*{message}"):
            load_checkpoint(path)

    def test_attributes_replace_no_method(self, agents: dict[str, Path], tmp_path: Path, rewrite: Rewrite) -> None:
        change = set_in("attributes", "predict", to="nothing")
        model = load_checkpoint(rewrite(agents["quantile"], tmp_path / "hostile.zip", manifest=change))
        assert callable(model.predict)

    def test_a_rollout_may_be_as_large_as_the_limit(
        self, agents: dict[str, Path], tmp_path: Path, rewrite: Rewrite
    ) -> None:
        path = rewrite(agents["quantile"], tmp_path / "long.zip", manifest=set_in("arguments", "n_steps", to=1000))
        size = 2 * 1000 * (4 * 4 + 8 + 6 * 4)  # four float32 observations, an int64 action, six float32 figures
        assert load_checkpoint(path, limits=Limits(max_total_bytes=size)).n_steps == 1000
        with pytest.raises(CheckpointError, match=f"takes {size} bytes, more than the limit of {size - 1}"):
            load_checkpoint(path, limits=Limits(max_total_bytes=size - 1))

    @pytest.mark.parametrize(
        ("member", "change", "message"),
        [
            (
                "policy.pth",
                {"value_net.bias": th.zeros(3)},
                r"manifest\.json: n_quantiles: 4, but the value head has 3 outputs",
            ),
            ("policy.pth", {"surprise": th.zeros(3)}, r"policy\.pth: surprise: \(3,\).*ask for nothing"),
            (
                "policy.pth",
                {"value_net.weight": th.tensor(1.0)},
                r"policy\.pth: value_net\.weight: \(\);.* ask for \(4, 8\)",
            ),
            ("policy.pth", {7: th.zeros(3)}, r"policy\.pth: tensors by name"),
            ("policy.pth", {"value_net.bias": "text"}, r"policy\.pth: tensors by name"),
            ("policy.optimizer.pth", {"state": {0: {"step": 1}}}, r"policy\.optimizer\.pth: "),
            ("policy.optimizer.pth", {"param_groups": []}, r"policy\.optimizer\.pth: "),
            ("vgs.pth", {"param_numel": th.ones(2)}, r"VGS state: field"),
            ("vgs.pth", {"vgs_version": "9.9"}, r"VGS state: field 'vgs_version'"),
            ("critic.pth", {}, r"critic\.pth: the model has no such part"),
        ],
    )
    def test_tensors_that_do_not_fit_are_refused(
        self,
        member: str,
        change: dict[str, Any],
        message: str,
        agents: dict[str, Path],
        tmp_path: Path,
        rewrite: Rewrite,
    ) -> None:
        def members(content: dict[str, bytes]) -> None:
            state = load_tensors(content[member], "", member) if member in content else {}
            content[member] = dump_tensors({**state, **change})

        path = rewrite(agents["quantile"], tmp_path / "hostile.zip", members)
        with pytest.raises(CheckpointError, match=rf"^{path}: {message}"):
            load_checkpoint(path)

    @pytest.mark.parametrize(
        ("key", "value"),
        [("exp_avg", th.zeros(1)), ("exp_avg_sq", th.zeros(4, 8)), ("step", th.zeros(2)), ("step", "many")],
    )
    def test_moments_that_adam_would_stumble_over_later_are_refused(
        self, key: str, value: Any, agents: dict[str, Path], tmp_path: Path, rewrite: Rewrite
    ) -> None:
        def members(content: dict[str, bytes]) -> None:
            state = load_tensors(content["policy.optimizer.pth"], "", "")
            state["state"][1][key] = value
            content["policy.optimizer.pth"] = dump_tensors(state)

        path = rewrite(agents["adam"], tmp_path / "hostile.zip", members)
        with pytest.raises(CheckpointError, match=r"policy\.optimizer\.pth: "):
            load_checkpoint(path)

    @pytest.mark.parametrize("member", ["policy.pth", "policy.optimizer.pth", "data"])
    def test_a_missing_member_is_named(
        self, member: str, agents: dict[str, Path], tmp_path: Path, rewrite: Rewrite
    ) -> None:
        path = rewrite(agents["quantile"], tmp_path / "hostile.zip", lambda content: content.pop(member))
        if member == "data":  # which only unpicklers need
            assert load_checkpoint(path).num_timesteps == 64
        else:
            with pytest.raises(CheckpointError, match=f"{member}: missing"):
                load_checkpoint(path)


class TestNothingIsExecuted:
    @staticmethod
    def infect_data(content: dict[str, bytes], marker: Path) -> None:
        data = json.loads(content["data"])
        code = base64.b64encode(pickle.dumps(Payload(marker))).decode()
        for value in data.values():
            if isinstance(value, dict) and ":serialized:" in value:
                value[":serialized:"] = code
        content["data"] = json.dumps(data).encode()

    def test_pickles_in_data(self, agents: dict[str, Path], tmp_path: Path, rewrite: Rewrite) -> None:
        marker = tmp_path / "executed"
        path = rewrite(agents["quantile"], tmp_path / "hostile.zip", lambda content: self.infect_data(content, marker))
        load_checkpoint(path, "CartPole-v1").learn(32)
        assert not marker.exists()
        with pytest.raises(Exception, match=r"."):  # the control: SB3 executes it, and fails on what comes out
            DistributionalPPO.load(path)
        assert marker.exists()

    def test_pickles_in_an_sb3_zip(self, sb3_zip: Path, tmp_path: Path) -> None:
        marker, path = tmp_path / "executed", tmp_path / "hostile.zip"
        content = dict(read_archive(sb3_zip).members)
        self.infect_data(content, marker)
        with zipfile.ZipFile(path, "w") as archive:
            for name, member in content.items():
                archive.writestr(name, member)
        assert load_checkpoint(path, "Pendulum-v1").clip_range(1.0) == pytest.approx(0.3)
        assert not marker.exists()

    @pytest.mark.parametrize("member", ["policy.pth", "policy.optimizer.pth", "vgs.pth", VEC_NORMALIZE])
    def test_pickles_in_tensors(self, member: str, agents: dict[str, Path], tmp_path: Path, rewrite: Rewrite) -> None:
        marker = tmp_path / "executed"
        th.save({"weight": Payload(marker)}, tmp_path / "payload")
        payload = (tmp_path / "payload").read_bytes()
        path = rewrite(agents["quantile"], tmp_path / "hostile.zip", lambda content: content.update({member: payload}))
        env = VecNormalize(make_vec_env("CartPole-v1", n_envs=2))
        with pytest.raises(CheckpointError, match=f"{member}: refers to"):
            load_checkpoint(path, env)
        assert not marker.exists()
        th.load(tmp_path / "payload", weights_only=False)  # the control
        assert marker.exists()


def check_bit_flips(path: Path, tmp_path: Path, n_flips: int, seed: int) -> None:
    content = path.read_bytes()
    expected = dump_tensors(load_checkpoint(path).get_parameters())
    damaged_file = tmp_path / "damaged.zip"
    rng = random.Random(seed)
    for _ in range(n_flips):
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        damaged_file.write_bytes(damaged)
        try:
            model = load_checkpoint(damaged_file)
        except CheckpointError:
            continue
        assert dump_tensors(model.get_parameters()) == expected


def test_a_flipped_bit_is_refused_or_changes_nothing(agents: dict[str, Path], tmp_path: Path) -> None:
    check_bit_flips(agents["quantile"], tmp_path, n_flips=60, seed=0)


@pytest.mark.slow
def test_many_flipped_bits_are_refused_or_change_nothing(agents: dict[str, Path], tmp_path: Path) -> None:
    check_bit_flips(agents["quantile"], tmp_path, n_flips=500, seed=1)
    check_bit_flips(agents["adam"], tmp_path, n_flips=500, seed=2)
