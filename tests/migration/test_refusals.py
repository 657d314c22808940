"""What a migration refuses, and leaves as it was; and that nothing in a source is executed."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from helpers import Payload
from sb3_vgs_ppo import DistributionalPPO, inspect_checkpoint, load_checkpoint, migrate_checkpoint
from sb3_vgs_ppo.checkpoint import read_archive
from sb3_vgs_ppo.checkpoint.vec_normalize import VEC_NORMALIZE
from sb3_vgs_ppo.errors import CheckpointError, UserInputError

GOLDEN = Path(__file__).parents[1] / "fixtures" / "legacy"

Rewrite = Callable[[Path, dict[str, bytes]], None]


class TestRefusals:
    def test_an_existing_target_is_kept_unless_forced(self, tmp_path: Path) -> None:
        target = tmp_path / "new.zip"
        target.write_text("precious")
        with pytest.raises(UserInputError, match=r"new\.zip exists already; remedy: .*--force"):
            migrate_checkpoint(GOLDEN / "vgs_3_0_categorical.zip", tmp_path / "new")
        assert target.read_text() == "precious"
        migrate_checkpoint(GOLDEN / "vgs_3_0_categorical.zip", tmp_path / "new", force=True)
        assert inspect_checkpoint(target).kind == "checkpoint"

    @pytest.mark.parametrize("force", [False, True])
    def test_the_target_is_not_the_source(self, force: bool, tmp_path: Path) -> None:
        source = tmp_path / "old.zip"
        source.write_bytes((GOLDEN / "vgs_3_0_categorical.zip").read_bytes())
        (tmp_path / "link.zip").symlink_to(source)
        (tmp_path / "hard.zip").hardlink_to(source)
        for target in ("old.zip", "old", "../" + tmp_path.name + "/old.zip", "link.zip", "hard.zip"):
            with pytest.raises(UserInputError, match="is the source, which is never changed"):
                migrate_checkpoint(source, tmp_path / target, force=force)
        assert source.read_bytes() == (GOLDEN / "vgs_3_0_categorical.zip").read_bytes()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"to_version": "9.9"}, r"to_version='9\.9' is not known; remedy: 1\.0"),
            ({"value_head": "scalar"}, "value_head='scalar' cannot be made from a categorical head"),
            ({"env_id": "CortPole-v1"}, "env_id='CortPole-v1' cannot be made: .*CartPole"),
            ({"env_id": "no_such_module:Env-v0"}, "cannot be made: No module named 'no_such_module'"),
        ],
    )
    def test_arguments_that_cannot_be_used(self, arguments: dict[str, str], message: str, tmp_path: Path) -> None:
        with pytest.raises(UserInputError, match=message):
            migrate_checkpoint(GOLDEN / "vgs_3_0_categorical.zip", tmp_path / "new", **arguments)
        assert list(tmp_path.iterdir()) == []

    def test_a_categorical_head_could_only_be_fitted(self, plain: dict[str, Any], tmp_path: Path) -> None:
        agent = plain["mlp"]
        with pytest.raises(UserInputError, match=r"value_head='categorical' .* only be fitted\. Remedy"):
            migrate_checkpoint(agent.path, tmp_path / "new", env_id=agent.env_id, value_head="categorical")

    def test_another_environment(self, plain: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"policy\.pth: action_net"):
            migrate_checkpoint(plain["mlp"].path, tmp_path / "new", env_id="Pendulum-v1")
        with pytest.raises(CheckpointError, match=r"observation_space: .* is not that of the given environment"):
            migrate_checkpoint(GOLDEN / "vgs_3_0_categorical.zip", tmp_path / "new", env_id="Pendulum-v1")

    def test_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "new.zip").mkdir()
        with pytest.raises(UserInputError, match="is a folder"):
            migrate_checkpoint(GOLDEN / "vgs_3_0_categorical.zip", tmp_path / "new.zip", force=True)

    def test_a_missing_source(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            migrate_checkpoint(tmp_path / "old.zip", tmp_path / "new.zip")

    def test_a_failed_write_leaves_the_old_target(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target = tmp_path / "new.zip"
        target.write_text("precious")

        def disk_full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", disk_full)
        with pytest.raises(OSError, match="No space left"):
            migrate_checkpoint(GOLDEN / "vgs_3_0_categorical.zip", target, force=True)
        assert [path.name for path in tmp_path.iterdir()] == ["new.zip"]
        assert target.read_text() == "precious"


class TestNothingIsExecuted:
    @pytest.mark.parametrize("name", ["vgs_3_0_categorical", "no_manifest_2_0", "sb3_ppo"])
    def test_pickles_in_data_do_not_reach_the_target(self, name: str, rewrite: Rewrite, tmp_path: Path) -> None:
        marker, source = tmp_path / "executed", tmp_path / "hostile.zip"
        content = dict(read_archive(GOLDEN / f"{name}.zip").members)
        data = json.loads(content["data"])
        code = base64.b64encode(pickle.dumps(Payload(marker))).decode()
        for value in data.values():
            if isinstance(value, dict) and ":serialized:" in value:
                value[":serialized:"] = code
        rewrite(source, {**content, "data": json.dumps(data).encode()})
        inspect_checkpoint(source)
        migrate_checkpoint(
            source, tmp_path / "new.zip", to_version="2.0" if name[0] == "n" else "3.0", env_id="CartPole-v1"
        )
        assert code not in read_archive(tmp_path / "new.zip").members["data"].decode()
        DistributionalPPO.load(tmp_path / "new.zip")
        assert not marker.exists()
        with pytest.raises(Exception, match=r"."):  # the control: SB3 executes it, and fails on what comes out
            DistributionalPPO.load(source)
        assert marker.exists()

    @pytest.mark.parametrize("member", ["policy.pth", "policy.optimizer.pth", "vgs.pth", VEC_NORMALIZE])
    @pytest.mark.parametrize("name", ["vgs_3_0_categorical", "no_manifest_2_0"])
    def test_pickles_in_tensors(self, name: str, member: str, rewrite: Rewrite, tmp_path: Path) -> None:
        marker, source = tmp_path / "executed", tmp_path / "hostile.zip"
        th.save({"step_count": Payload(marker), "vgs_version": "2.0"}, tmp_path / "payload")
        content = dict(read_archive(GOLDEN / f"{name}.zip").members)
        rewrite(source, {**content, member: (tmp_path / "payload").read_bytes()})
        for read in (
            inspect_checkpoint,
            lambda path: load_checkpoint(path, VecNormalize(make_vec_env("CartPole-v1"))),
            lambda path: migrate_checkpoint(path, tmp_path / "new.zip", env_id="CartPole-v1", to_version="2.0"),
        ):
            with pytest.raises(CheckpointError, match=rf"hostile\.zip: {member}: refers to"):
                read(source)
        assert not marker.exists()
        assert not (tmp_path / "new.zip").exists()

    def test_a_pickle_in_a_bare_state(self, tmp_path: Path) -> None:
        marker, source = tmp_path / "executed", tmp_path / "hostile.pt"
        th.save({"step_count": Payload(marker), "vgs_version": "2.0"}, source)
        with pytest.raises(CheckpointError, match=r"hostile\.pt: VGS state: refers to"):
            migrate_checkpoint(source, tmp_path / "new.pt")
        assert not marker.exists()
