"""Damage at random: a file reads as it was written, or it is refused, and nothing else ever happens."""

from __future__ import annotations

import io
import random
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sb3_vgs_ppo.checkpoint import Manifest, inspect_checkpoint, load_tensors, read_checkpoint
from sb3_vgs_ppo.checkpoint.encoding import decode
from sb3_vgs_ppo.checkpoint.spaces import decode_space
from sb3_vgs_ppo.errors import CheckpointError


def mutate(content: bytes, seed: int) -> bytes:
    """Flip a bit, overwrite, cut off, remove or insert bytes, at one to four places."""
    rng = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 4])):
        at, kind = rng.randrange(len(damaged)), rng.randrange(5)
        length = rng.randrange(1, 40)
        if kind == 0:
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            damaged[at] = rng.randrange(256)
        elif kind == 2:
            del damaged[max(at, 1) :]
        elif kind == 3:
            del damaged[max(at, 1) : at + length]
        else:
            damaged[at:at] = rng.randbytes(length)
    return bytes(damaged)


def outcomes(content: bytes, read: Callable[[bytes], object], seeds: range) -> Counter[str]:
    """How often mutations of a content were read and refused; any other exception fails the test."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        try:
            read(mutate(content, seed))
        except CheckpointError:
            counts["refused"] += 1
        else:
            counts["read"] += 1
    return counts


def read_everything(content: bytes) -> tuple[dict[str, bytes], Manifest]:
    checkpoint = read_checkpoint(io.BytesIO(content))
    return dict(checkpoint.archive.members), checkpoint.manifest


def check_reads_identically(checkpoint_bytes: bytes, seeds: range) -> None:
    original = read_everything(checkpoint_bytes)

    def read(content: bytes) -> None:
        assert read_everything(content) == original

    counts = outcomes(checkpoint_bytes, read, seeds)
    assert counts["refused"] > 0.9 * len(seeds)


def check_header_bytes(checkpoint_bytes: bytes, values: list[int]) -> None:
    """Every byte of every header, which random positions would rarely hit."""
    original = read_everything(checkpoint_bytes)
    with zipfile.ZipFile(io.BytesIO(checkpoint_bytes)) as archive:
        starts = [entry.header_offset for entry in archive.infolist()] + [archive.start_dir]
    positions = {at for start in starts for at in range(start, start + 30)} | set(
        range(starts[-1], len(checkpoint_bytes))
    )
    for position in sorted(positions):
        for value in values:
            damaged = bytearray(checkpoint_bytes)
            damaged[position] ^= value
            with suppress(CheckpointError):
                assert read_everything(bytes(damaged)) == original


def test_a_damaged_checkpoint_reads_identically_or_is_refused(checkpoint_bytes: bytes) -> None:
    check_reads_identically(checkpoint_bytes, range(200))


def test_a_damaged_header_reads_identically_or_is_refused(checkpoint_bytes: bytes) -> None:
    check_header_bytes(checkpoint_bytes, [0xFF])


@pytest.mark.slow
def test_many_damaged_checkpoints_read_identically_or_are_refused(checkpoint_bytes: bytes) -> None:
    check_reads_identically(checkpoint_bytes, range(200, 5000))
    check_header_bytes(checkpoint_bytes, [1 << bit for bit in range(8)])


def test_every_truncation_is_refused(checkpoint_bytes: bytes) -> None:
    for length in range(0, len(checkpoint_bytes), 7):
        with pytest.raises(CheckpointError):
            read_checkpoint(io.BytesIO(checkpoint_bytes[:length]))


def test_inspection_refuses_what_it_cannot_read(checkpoint_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"

    def inspect(content: bytes) -> None:
        path.write_bytes(content)
        inspect_checkpoint(path)

    assert outcomes(checkpoint_bytes, inspect, range(60))["refused"] > 50


def check_pickles(content: bytes, seeds: range) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    (pickle_name,) = (name for name in records if name.endswith("/data.pkl"))

    def read(pickle: bytes) -> Any:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, record in (records | {pickle_name: pickle}).items():
                archive.writestr(name, record)
        return load_tensors(buffer.getvalue(), "model.zip", "policy.pth")

    assert outcomes(records[pickle_name], read, seeds)["refused"] > 0.8 * len(seeds)


def check_manifests(manifest: Manifest, seeds: range) -> None:
    def read(content: bytes) -> None:
        damaged = Manifest.from_json(content, "model.zip")
        for field in ("arguments", "policy_class", "policy_kwargs", "attributes", "optimizer_class"):
            decode(getattr(damaged, field), field, argument=field)
        for field in ("observation_space", "action_space"):
            decode_space(getattr(damaged, field), field)

    assert outcomes(manifest.to_json(), read, seeds)["refused"] > 0.8 * len(seeds)


def test_a_pickle_whose_checksum_was_mended_is_refused_or_read(members: dict[str, bytes]) -> None:
    check_pickles(members["policy.pth"], range(200))


def test_a_manifest_whose_checksum_was_mended_is_refused_or_read(manifest: Manifest) -> None:
    check_manifests(manifest, range(500))


@pytest.mark.slow
def test_many_members_whose_checksum_was_mended(members: dict[str, bytes], manifest: Manifest) -> None:
    check_pickles(members["policy.pth"], range(200, 5000))
    check_manifests(manifest, range(500, 10_000))
