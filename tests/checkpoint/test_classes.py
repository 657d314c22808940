"""Which classes a checkpoint's text can name."""

from __future__ import annotations

import sys

import pytest
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_vgs_ppo.checkpoint.classes import class_name, is_allowed, resolve_class
from sb3_vgs_ppo.errors import CheckpointError


def test_resolves_a_class_by_the_name_of_its_module() -> None:
    assert resolve_class("torch.optim.adam.Adam", "field") is th.optim.Adam
    assert resolve_class(class_name(ActorCriticPolicy), "field", "policy_class") is ActorCriticPolicy


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os.system", "is not a class of"),
        ("subprocess.Popen", "is not a class of"),
        ("builtins.eval", "is not a class of"),
        ("Popen", "is not a class of"),
        ("", "is not a class of"),
        ("torch.optimizer.Adam", "is not a class of"),
        ("torch.nn.modules_evil.Tanh", "is not a class of"),
        ("torch.utils.data.DataLoader", "is not a class of"),
        ("stable_baselines3..common.policies.ActorCriticPolicy", "is not a class of"),
        ("stable_baselines3.common.policies.ActorCriticPolicy ", "is not a class of"),
        ("stable_baselines3.common.policies.ActorCriticPolicy.__subclasses__", "is not a class of"),
        ("stable_baselines3.common.utils.__builtins__", "is not a class of"),
        ("sb3_vgs_ppo.__main__.main", "is not a class of"),
        # Names that a module merely imported
        ("stable_baselines3.common.utils.os", "defines no class 'os'"),
        ("stable_baselines3.common.save_util.pickle", "defines no class 'pickle'"),
        ("stable_baselines3.common.utils.deque", "defines no class 'deque'"),
        ("torch.nn.modules.Tanh", "defines no class 'Tanh'"),
        ("stable_baselines3.common.save_util.pickle.Unpickler", "cannot import"),
        ("stable_baselines3.common.utils.os.system", "cannot import"),
        # Functions, and classes of other kinds
        ("stable_baselines3.common.save_util.load_from_pkl", "defines no class"),
        ("stable_baselines3.common.vec_env.subproc_vec_env.SubprocVecEnv", "does not derive from Module or Optimizer"),
        ("stable_baselines3.common.logger.Logger", "does not derive from"),
        ("torch.optim.lr_scheduler.LambdaLR", "does not derive from"),
        # Absent
        ("torch.optim.adam.NoSuch", "defines no class 'NoSuch'"),
        ("torch.optim.nosuch.Adam", "cannot import torch.optim.nosuch"),
    ],
)
def test_everything_else_is_refused(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^file: field: .*{message}"):
        resolve_class(name, "file: field")


def test_a_refused_module_is_not_even_imported() -> None:
    assert "antigravity" not in sys.modules
    for name in ("antigravity.Module", "sb3_vgs_ppo.__main__.Module"):
        with pytest.raises(CheckpointError):
            resolve_class(name, "field")
    assert not {"antigravity", "sb3_vgs_ppo.__main__"} & sys.modules.keys()


def test_a_module_hook_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "__getattr__", asked.append, raising=False)
    with pytest.raises(CheckpointError, match="defines no class 'Hooked'"):
        resolve_class("torch.optim.adam.Hooked", "field")
    assert "Hooked" not in asked


@pytest.mark.parametrize(
    ("argument", "name", "base"),
    [
        ("policy_class", "torch.nn.modules.activation.Tanh", "BasePolicy"),
        ("activation_fn", "torch.optim.adam.Adam", "Module"),
        ("optimizer_class", "torch.nn.modules.activation.Tanh", "Optimizer"),
        ("features_extractor_class", "torch.nn.modules.activation.Tanh", "BaseFeaturesExtractor"),
        ("rollout_buffer_class", "torch.nn.modules.activation.Tanh", "BaseBuffer"),
    ],
)
def test_an_argument_gets_a_class_of_its_kind(argument: str, name: str, base: str) -> None:
    resolve_class(name, "field")
    with pytest.raises(CheckpointError, match=f"{name} does not derive from {base}$"):
        resolve_class(name, "field", argument)


def test_classes_of_users_are_not_allowed() -> None:
    class OwnActivation(th.nn.Module):
        pass

    impostor = type("Tanh", (th.nn.Module,), {"__module__": "torch.nn.modules.activation"})
    assert is_allowed(th.nn.Tanh)
    assert not is_allowed(OwnActivation)
    assert not is_allowed(impostor)
    assert not is_allowed(dict)
