"""What is built and installed: sdist and wheel, lower bounds, and the tables that tell users of them."""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
INSTALLATION = ROOT / "docs" / "installation.md"
PROJECT_FILES = ["pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"]

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has it first")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lower_bound(requirement: Requirement) -> Version:
    """:return: the version in ``>=``, the only specifier that dependencies of a library should need"""
    (specifier,) = requirement.specifier
    assert specifier.operator == ">="
    return Version(specifier.version)


def pins(name: str) -> dict[str, Version]:
    """:return: versions of a constraints file by package"""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def table_of(page: Path, first_column: str) -> list[list[str]]:
    """:return: rows of the only table of a page whose heading begins so"""
    (found,) = re.findall(rf"^\| {first_column} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page.read_text("utf-8"), re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found.splitlines()]


DEPENDENCIES = {canonicalize_name(item.name): item for item in map(Requirement, PROJECT["dependencies"])}


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    assert pins("constraints-oldest.txt") == {name: lower_bound(item) for name, item in DEPENDENCIES.items()}


def test_the_tested_set_lies_within_the_bounds() -> None:
    tested = pins("constraints.txt")
    for requirements in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for item in map(Requirement, requirements):
            if item.name != PROJECT["name"]:
                assert tested[canonicalize_name(item.name)] in item.specifier, item


def test_the_table_of_tested_versions_agrees() -> None:
    oldest, tested = pins("constraints-oldest.txt"), pins("constraints.txt")
    rows = {row[0].strip("`"): [Version(version) for version in row[1:]] for row in table_of(INSTALLATION, "package")}
    assert {name: versions[:2] for name, versions in rows.items()} == {
        name: [oldest[name], tested[name]] for name in DEPENDENCIES
    }
    assert all(low <= middle <= high for low, middle, high in rows.values())


@pytest.mark.parametrize("page", [ROOT / "README.md", INSTALLATION], ids=lambda page: page.name)
def test_the_table_of_extras_agrees(page: Path) -> None:
    rows = {row[0].strip("`"): row[-1] for row in table_of(page, "extra")}
    extras = PROJECT["optional-dependencies"]
    assert list(rows) == list(extras)
    for extra, packages in rows.items():
        named = set(re.findall(r"`([\w-]+)", packages))
        needed = {item.name for item in map(Requirement, extras[extra])}
        assert named <= needed if extra == "dev" else named == needed, extra


def test_dev_brings_every_other_extra() -> None:
    extras = PROJECT["optional-dependencies"]
    (itself,) = (item for item in map(Requirement, extras["dev"]) if item.name == PROJECT["name"])
    assert itself.extras == set(extras) - {"dev"}


def package_files() -> set[str]:
    files = (path for path in (ROOT / "sb3_vgs_ppo").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """:return: the sdist, the wheel from the tree and the wheel from the sdist"""
    build = pytest.importorskip("build")
    hooks = pytest.importorskip("pyproject_hooks")
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    for name in ("sb3_vgs_ppo", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in PROJECT_FILES:
        shutil.copy(ROOT / name, tree)

    def make(source: Path, distribution: str, target: str) -> Path:
        builder = build.ProjectBuilder(source, runner=hooks.quiet_subprocess_runner)
        return Path(builder.build(distribution, folder / target))

    sdist = make(tree, "sdist", "sdist")
    shutil.unpack_archive(sdist, folder)
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    return {"sdist": sdist, "tree": make(tree, "wheel", "tree_wheel"), "wheel": make(unpacked, "wheel", "wheel")}


def test_the_sdist_holds_the_package_and_what_describes_it(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {name for name in files if name.startswith("sb3_vgs_ppo.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert files - made == {*package_files(), *PROJECT_FILES}


def test_the_wheel_holds_the_package_alone(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == package_files()


def test_the_wheel_of_the_sdist_is_that_of_the_tree(built: dict[str, Path]) -> None:
    contents = []
    for name in ("tree", "wheel"):
        with zipfile.ZipFile(built[name]) as wheel:
            contents.append({info.filename: info.CRC for info in wheel.infolist()})
    assert contents[0] == contents[1]
