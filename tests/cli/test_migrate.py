"""The command ``migrate``: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_vgs_ppo import inspect_checkpoint, load_checkpoint
from sb3_vgs_ppo.cli.main import main

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "fixtures" / "legacy"
OLD = str(GOLDEN / "vgs_2_0_quantile.zip")
PLAIN = str(GOLDEN / "sb3_ppo.zip")


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_table_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", OLD, "new.zip"]) == 0
    out, err = capsys.readouterr()
    labels = [line.split("  ")[0] for line in out.splitlines() if line[:1].strip()]
    assert labels == ["source", "target", "kept", "converted", "reset", "to do"]
    assert "VGS 2.0 to 3.0: settings and the global figures" in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 120
    assert err.startswith("warning: VGS v3.0 CRITICAL FIX")
    assert err.count("CRITICAL FIX") == 1
    assert inspect_checkpoint("new.zip").vgs is not None


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--env-id", "CartPole-v1", "--value-head", "quantile", "--optimizer", "adaptive-upgd"]
    assert main(["migrate", PLAIN, "new", "--to-version", "2.0", "--json", *arguments]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["kind"], report["from_version"], report["to_version"]) == ("sb3", None, "2.0")
    assert report["target"] == "new.zip"
    assert err == ""
    model = load_checkpoint("new.zip")
    assert (model.policy.value_head, type(model.policy.optimizer).__name__) == ("quantile", "AdaptiveUPGD")


def test_trust_pickle_needs_no_environment() -> None:
    assert main(["migrate", PLAIN, "new.zip", "--trust-pickle"]) == 0
    assert inspect_checkpoint("new.zip").value_head == "scalar"


def test_force_replaces_the_target() -> None:
    Path("new.zip").write_text("old")
    assert main(["migrate", OLD, "new.zip", "--force"]) == 0
    assert inspect_checkpoint("new.zip").kind == "checkpoint"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([OLD, OLD], "is the source, which is never changed"),
        ([OLD, "there.zip"], "there.zip exists already"),
        (["missing.zip", "new.zip"], "missing.zip: No such file"),
        (["there.zip", "new.zip"], "there.zip: not a zip file"),
        ([PLAIN, "new.zip"], "--env-id"),
        ([PLAIN, "new.zip", "--env-id", "CortPole-v1"], "'CortPole-v1' cannot be made"),
        ([PLAIN, "new.zip", "--env-id", "CartPole-v1", "--value-head", "categorical"], "only be fitted"),
        ([OLD, "new.zip", "--to-version", "9.9"], "'9.9' is not known"),
        ([OLD, "there.zip/new.zip"], "there.zip"),
        ([OLD, "new.zip", "--too-version", "3.0"], "--to-version"),
        ([OLD], "dst"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.zip").write_text("precious")
    assert main(["migrate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert message.lower() in err.lower()
    assert [path.name for path in Path().iterdir()] == ["there.zip"]
    assert Path("there.zip").read_text() == "precious"


def test_the_script_is_the_command() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "migrate.py")]
    done = subprocess.run([*script, OLD, "missing/new.zip"], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("warning: VGS v3.0 CRITICAL FIX")
    assert Path("missing/new.zip").exists()
