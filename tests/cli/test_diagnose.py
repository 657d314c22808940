"""The command ``diagnose``: what it prints and writes, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sb3_vgs_ppo.cli.main import main

QUICK = ["--observations", "20"]


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("version", "exit_code"), [("1.0", 1), ("2.0", 1), ("3.0", 0), ("3.1", 1), ("4.0", 0)])
def test_exit_code_says_whether_the_version_reads_what_it_claims(version: str, exit_code: int) -> None:
    assert main(["diagnose", "--vgs-version", version, "--no-figure", *QUICK]) == exit_code
    assert list(Path().iterdir()) == []


def test_tables_are_plain_and_fit_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # a width that a pipe does not have
    assert main(["diagnose", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    assert max(len(line) for line in printed.splitlines()) <= 80
    titles = re.findall(r"^(VGS \d\.\d|UPGD.*'\w+').*: (passes|FAILS \d+ of \d+)$", printed, re.MULTILINE)
    assert titles == [
        ("VGS 1.0", "FAILS 9 of 10"),
        ("VGS 2.0", "FAILS 9 of 10"),
        ("VGS 3.0", "passes"),
        ("VGS 3.1", titles[3][1]),
        ("VGS 4.0", "passes"),
        ("UPGD with utility_normalization='minmax'", "passes"),
        ("UPGD with utility_normalization='max'", "FAILS 2 of 7"),
        ("UPGD with utility_normalization='official'", "FAILS 7 of 7"),
    ]
    assert titles[3][1].startswith("FAILS")
    assert re.search(r"^Test Case 3 \(30 obs\.\) +0 +1\.28 +0\.887 +false alarm", printed, re.MULTILINE)
    assert "blind (no claim)" in printed
    assert printed.endswith("Figure: diagnosis.png\n")
    assert Path("diagnosis.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--vgs-version", "2.0", "--json", "--seed", "3", "--figure", "two.svg", *QUICK]
    assert main(["diagnose", *arguments]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["seed"], found["observations"], found["upgd"]) == (3, 20, [])
    (version,) = found["vgs"]
    assert (version["version"], version["passes"]) == ("2.0", False)
    case_3 = next(reading for reading in version["readings"] if reading["stream"].startswith("Test Case 3"))
    assert case_3["normalized_variance"] == pytest.approx(1.2768, abs=0.0005)
    assert (case_3["true_variance"], case_3["verdict"], case_3["claimed"]) == (0.0, "false alarm", True)
    assert [path.name for path in Path().iterdir()] == ["two.svg"]


def test_json_of_gates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--json", "--no-figure", *QUICK]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # NaN is not JSON
    gates = {(gate["utility_normalization"], gate["utilities"], gate["step"]): gate for gate in found["upgd"]}
    assert gates["minmax", "negative", 1]["gate_range"] == pytest.approx([0.2689, 0.7311], abs=1e-4)
    assert gates["official", "all zero", 1]["gate_range"] is None
    assert [version["passes"] for version in found["vgs"]] == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vgs-version", "9.9"], "error: unknown VGS version '9.9'; known versions: 1.0, 2.0, 3.0, 3.1, 4.0"),
        (["--observations", "1"], "error: observations=1: .*at least 2"),
        (["--seed", "-1"], "error: seed=-1: .*from 0"),
        (["--figure", "no/such/x.png"], "error: figure 'no/such/x.png': there is no folder 'no/such'"),
        (["--figure", "x.docx"], "error: figure 'x.docx': .*\\.png"),
        (["--figures", "x.png"], "error: no option '--figures'; did you mean '--figure'"),
    ],
)
def test_bad_values_are_one_line_and_leave_nothing(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", *arguments]) == 2
    printed = capsys.readouterr()
    assert re.match(message, printed.err)
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert list(Path().iterdir()) == []
