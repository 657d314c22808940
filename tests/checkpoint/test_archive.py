"""Reading a zip file from a stranger, writing one as Stable-Baselines3 would."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sb3_vgs_ppo.checkpoint import Limits, read_archive, write_archive
from sb3_vgs_ppo.errors import CheckpointError

MEMBERS = {"a": b"first", "folder/b.pt": b"", "ü.json": bytes(range(256)) * 40}
MIB = 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "archive.zip"
    write_archive(path, MEMBERS)
    return path


def refusal(path: Path, limits: Limits | None = None) -> str:
    """The message with which a file is refused, without the file's name."""
    with pytest.raises(CheckpointError) as caught:
        read_archive(path, limits)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def patch(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def patch_headers(path: Path, local_offset: int, central_offset: int, value: bytes) -> None:
    """Overwrite a field of the only member, in its local header and in the table of contents."""
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    content[local_offset : local_offset + len(value)] = value
    content[central + central_offset : central + central_offset + len(value)] = value
    path.write_bytes(content)


# Writing and reading back


def test_round_trip(path: Path) -> None:
    archive = read_archive(path)
    assert archive.members == MEMBERS
    assert archive.file == str(path)
    assert archive["a"] == b"first"


def test_other_programs_can_read_it(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("ü.json") == MEMBERS["ü.json"]
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o644}


def test_equal_members_give_equal_bytes(path: Path) -> None:
    buffer = io.BytesIO()
    write_archive(buffer, MEMBERS)
    assert buffer.getvalue() == path.read_bytes()


def test_open_files_stay_open(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    assert write_archive(buffer, MEMBERS) is None
    assert read_archive(buffer).members == MEMBERS
    assert not buffer.closed
    with open(tmp_path / "x", "wb") as file:
        write_archive(file, MEMBERS)
    assert read_archive(tmp_path / "x").members == MEMBERS


def test_a_text_file_is_refused_as_in_sb3(tmp_path: Path) -> None:
    with open(tmp_path / "x", "w") as file, pytest.raises(TypeError, match="invalid type"):
        write_archive(file, MEMBERS)  # type: ignore[arg-type]


def test_a_missing_member_is_named(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"archive\.zip: policy\.pth: missing \(the file holds a, folder/b\.pt"):
        read_archive(path)["policy.pth"]


# Paths, as Stable-Baselines3 treats them


def test_zip_is_appended_to_a_name_without_suffix(tmp_path: Path) -> None:
    assert write_archive(str(tmp_path / "model"), MEMBERS) == tmp_path / "model.zip"
    assert read_archive(tmp_path / "model").file == str(tmp_path / "model.zip")


def test_another_suffix_is_kept(tmp_path: Path) -> None:
    assert write_archive(tmp_path / "model.v1", MEMBERS) == tmp_path / "model.v1"


def test_missing_folders_are_created(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="does not exist. Will create it"):
        write_archive(tmp_path / "a" / "b" / "model", MEMBERS)
    assert (tmp_path / "a" / "b" / "model.zip").is_file()


def test_a_folder_gets_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model.d").mkdir()
    with pytest.warns(UserWarning, match="is a folder"):
        assert write_archive(tmp_path / "model.d", MEMBERS) == tmp_path / "model.d_2"


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_archive(tmp_path / "absent")
    assert caught.value.filename == str(tmp_path / "absent")


# Refusals


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", os.urandom(5000), b"\x80\x02}q\x00."])
def test_something_else_than_a_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.zip"
    path.write_bytes(content)
    assert refusal(path) == "not a zip file, or a truncated one"


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path: Path, kept: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "truncated" in refusal(path)


def test_a_damaged_member_is_named(path: Path) -> None:
    patch(path, b"first", b"fIrst")
    assert refusal(path).startswith("a: Bad CRC-32")


def test_a_member_that_claims_to_be_empty_is_refused(make_zip: Callable[..., Path]) -> None:
    path = make_zip({"a": b"content"})
    patch_headers(path, 22, 24, struct.pack("<L", 0))
    assert refusal(path).startswith("a: Bad CRC-32")


def test_a_member_that_claims_to_be_longer_is_refused(make_zip: Callable[..., Path]) -> None:
    path = make_zip({"a": b"content" * 100}, zipfile.ZIP_DEFLATED)
    patch_headers(path, 22, 24, struct.pack("<L", 5000))
    assert refusal(path) == "a: 700 bytes instead of 5000"


def test_a_member_of_two_names_is_refused(path: Path) -> None:
    content = path.read_bytes()
    central = content.index(b"PK\x01\x02")
    path.write_bytes(content[:central] + content[central:].replace(b"folder/b.pt", b"folder/c.pt"))
    assert "File name in directory" in refusal(path)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up", "a/../../up", "a//b", "./a", "a\\b", "C:a", "folder/", "new\nline", "esc\x1b[2J"]
)
def test_a_name_that_could_lead_elsewhere_is_refused(make_zip: Callable[..., Path], name: str) -> None:
    assert refusal(make_zip({"fine": b"", name: b"x"})) == f"{name!r}: not a plain relative name"
    with pytest.raises(CheckpointError, match="not a plain relative name"):
        write_archive(io.BytesIO(), {name: b"x"})


def test_a_name_with_a_nul_byte_is_refused(make_zip: Callable[..., Path]) -> None:
    path = make_zip({"data_.txt": b"x"})
    patch(path, b"data_.txt", b"data\x00.txt")
    assert refusal(path) == "'data\\x00.txt': not a plain relative name"


def test_a_name_that_occurs_twice_is_refused(make_zip: Callable[..., Path]) -> None:
    path = make_zip({"data": b"one", "dat2": b"two"})
    patch(path, b"dat2", b"data")
    assert refusal(path) == "data: there are 2 members of this name"


def test_an_encrypted_member_is_refused(make_zip: Callable[..., Path]) -> None:
    path = make_zip({"a": b"secret"})
    patch_headers(path, 6, 8, struct.pack("<H", 1))
    assert refusal(path) == "a: encrypted"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFCHR])
def test_a_link_is_refused(tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (kind | 0o777) << 16
    path = tmp_path / "hostile.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    assert refusal(path).startswith("link: not a regular file")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(make_zip: Callable[..., Path], compression: int) -> None:
    assert refusal(make_zip({"a": b"x"}, compression)) == f"a: compression method {compression}; use stored or deflate"


def test_deflated_members_are_read(make_zip: Callable[..., Path]) -> None:
    assert read_archive(make_zip(MEMBERS, zipfile.ZIP_DEFLATED)).members == MEMBERS


# Limits


def test_a_bomb_is_refused_unopened(make_zip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip({"a": bytes(8 * MIB)}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    assert refusal(path) == f"{path.stat().st_size} bytes expand to {8 * MIB}, more than 200 times as much: a zip bomb"


def test_a_bomb_that_hides_its_size_fills_no_memory(make_zip: Callable[..., Path]) -> None:
    path = make_zip({"a": bytes(64 * MIB)}, zipfile.ZIP_DEFLATED)
    patch_headers(path, 22, 24, struct.pack("<L", 1000))
    tracemalloc.start()
    try:
        message = refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message.startswith("a: Bad CRC-32")
    assert peak < 4 * MIB


def test_members_that_share_their_bytes_count_each(make_zip: Callable[..., Path]) -> None:
    path = make_zip({f"{index:03}": b"" for index in range(300)} | {"300": os.urandom(10_000)})
    content = bytearray(path.read_bytes())
    local = content.rindex(b"PK\x03\x04")
    last = content.rindex(b"PK\x01\x02")
    at = content.index(b"PK\x01\x02")
    for _ in range(300):  # checksum and sizes, and the place of the one full member
        content[at + 16 : at + 28] = content[last + 16 : last + 28]
        content[at + 42 : at + 46] = struct.pack("<L", local)
        at = content.index(b"PK\x01\x02", at + 4)
    path.write_bytes(content)
    limits = Limits(max_ratio=50)
    assert "a zip bomb" in refusal(path, limits)


def test_the_size_of_all_members_is_limited(make_zip: Callable[..., Path]) -> None:
    path = make_zip({"a": b"a" * 3000, "b": b"b" * 3001}, zipfile.ZIP_DEFLATED)
    assert refusal(path, Limits(max_total_bytes=6000)) == "expands to 6001 bytes, more than the limit of 6000"
    assert len(read_archive(path, Limits(max_total_bytes=6001)).members) == 2


def test_a_stored_file_may_hold_its_own_size(path: Path) -> None:
    assert read_archive(path, Limits(max_total_bytes=1)).members == MEMBERS


def test_the_number_of_members_is_limited(path: Path) -> None:
    assert refusal(path, Limits(max_members=2)) == "3 members, more than the limit of 2"


def test_a_small_archive_may_compress_well(make_zip: Callable[..., Path]) -> None:
    path = make_zip({"a": bytes(MIB)}, zipfile.ZIP_DEFLATED)
    assert 200 * path.stat().st_size < MIB
    assert read_archive(path)["a"] == bytes(MIB)


def test_reading_warns_about_nothing(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_archive(path)


def test_a_failed_archive_keeps_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    old = path.read_bytes()
    monkeypatch.setattr("zipfile.ZipFile.writestr", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_archive(path, MEMBERS)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == ["archive.zip"]
