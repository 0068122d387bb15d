"""Zips without an object for each member: the same members and bytes as of Python's own reader."""

import io
import tracemalloc
import zipfile

import pytest

from gen4det.core.provenance import content_hash, content_hash_of_list
from gen4det.data.images import ImageStore, ShardWriter
from gen4det.data.shards import archive_digest
from gen4det.data.zip_members import ZipDirectory, ZipMembers

NAMES = ["b.png", "a/\u00e9t\u00e9.png", "a/\u732b.jpg", "c.txt", "b.png"]


def check(path) -> None:
    """Every member is as Python's reader finds it."""
    members = ZipMembers(path)
    with zipfile.ZipFile(path) as archive:
        assert list(members.names()) == archive.namelist()
        known = [(it.filename, it.file_size, it.CRC) for it in archive.infolist()]
        assert list(ZipDirectory(path).contents()) == known
        for name in archive.namelist():
            assert name in members
            with members.open(name) as stream:
                assert stream.read() == archive.read(name)
    for name in ("", "b.pn", "b.png/", "a", "\udcff.png", "\u00e9"):
        assert name not in members
        with pytest.raises(KeyError):
            members.open(name)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"a remark"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_are_those_of_pythons_reader(tmp_path, compression, comment):
    for number, before in enumerate((b"", b"#!/bin/sh\nunpack itself\n")):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(before)
        with zipfile.ZipFile(path, "a", compression) as archive:
            archive.comment = comment
            for place, name in enumerate(NAMES):
                archive.writestr(name, f"{name} {place} ".encode() * 99)
        check(path)


def test_names_in_the_code_page_of_old_archives(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("caf_.png", b"x")
    (tmp_path / "a.zip").write_bytes(stream.getvalue().replace(b"caf_.png", b"caf\x82.png"))
    assert "caf\u00e9.png" in ZipMembers(tmp_path / "a.zip")
    check(tmp_path / "a.zip")


def test_archives_of_more_than_four_gigabytes(tmp_path):
    path = tmp_path / "large.zip"
    with open(path, "wb") as file:
        file.truncate(5 << 30)  # a hole, which takes no disk
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a.png", b"x" * 100)
    check(path)


def test_sizes_that_stand_in_the_further_fields(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 50)  # as if these members were as large as that
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.png", "b.png"):
            archive.writestr(name, name.encode() * 30)
    assert b"PK\6\6" in (tmp_path / "a.zip").read_bytes()
    check(tmp_path / "a.zip")


def test_an_empty_archive_holds_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    check(tmp_path / "a.zip")


@pytest.mark.parametrize("keep", [0, 10, 60, 200, -30, -1])
def test_what_is_no_zip_is_refused(tmp_path, keep):
    with ShardWriter(tmp_path / "a.zip") as writer:
        for number in range(5):
            writer.add(f"{number}.png", b"x")
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:keep])
    with pytest.raises(zipfile.BadZipFile):
        ZipMembers(tmp_path / "a.zip")


def test_a_damaged_directory_is_refused(tmp_path):
    with ShardWriter(tmp_path / "a.zip") as writer:
        for number in range(5):
            writer.add(f"{number}.png", b"x")
    content = (tmp_path / "a.zip").read_bytes()
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    (tmp_path / "a.zip").write_bytes(content[:second] + b"XX" + content[second + 2 :])
    with pytest.raises(zipfile.BadZipFile):
        ZipMembers(tmp_path / "a.zip")


def test_the_digest_of_an_archive_is_that_of_the_list_of_its_members(tmp_path):
    with ShardWriter(tmp_path / "a.zip") as writer:
        for number in range(2500):
            writer.add(f"{number}-\u732b.png", b"x" * (number % 7))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        members = [[it.filename, it.file_size, it.CRC] for it in archive.infolist()]
    assert archive_digest(tmp_path / "a.zip") == content_hash(members)
    for count in (0, 1, 999, 1000, 1001):
        assert content_hash_of_list(iter(members[:count])) == content_hash(members[:count])
    unordered = {"b": 1, "a": [None]}
    assert content_hash_of_list([unordered]) == content_hash([unordered])


def test_an_open_archive_takes_a_few_bytes_for_each_member(tmp_path):
    """Of them Python's reader makes objects of more than 400 bytes each."""
    count = 5_000
    with ShardWriter(tmp_path / "a.zip") as writer:
        for number in range(count):
            writer.add(f"{number:012d}.png", b"x")
    store = ImageStore(tmp_path / "a.zip")
    tracemalloc.start()
    try:
        assert store.read(f"{count - 1:012d}.png") == b"x"
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 12 * count and peak < 60 * count + 1_500_000
