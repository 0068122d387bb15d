"""Downloads from a server on this machine: resumed, checked, unpacked safely, prepared as a data set."""

import hashlib
import json
import logging
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from public_data import jpeg, lvis_file, names, refusal, tarred, voc_archive, zipped

from file_server import FileServer
from gen4det.data.archives import unpack
from gen4det.data.datasets import load_dataset
from gen4det.data.download import fetch, probe
from gen4det.data.download_lock import LOCK_FILE
from gen4det.data.download_settings import DownloadDataset
from gen4det.data.images import image_name
from gen4det.data.public import obtain, prepare_public
from gen4det.data.registry import RegisteredFile, load_registry
from patience import patience

REGISTRY = Path(__file__).resolve().parents[2] / "resources" / "data_registry.yaml"
CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(file_server):
    file_server.files["a.zip"] = CONTENT
    return file_server


# --- one file -------------------------------------------------------------------------------------


def test_download_has_the_right_bytes(server, tmp_path):
    digest = fetch(server.url("a.zip"), tmp_path / "sub" / "a.zip", size=len(CONTENT), sha256=SHA256)
    assert digest == SHA256
    assert (tmp_path / "sub" / "a.zip").read_bytes() == CONTENT
    assert names(tmp_path) == ["sub/a.zip"]


def test_cut_connection_is_resumed_where_it_stopped(server, tmp_path):
    server.cut_after = [1_000_000, 500_000]
    assert fetch(server.url("a.zip"), tmp_path / "a.zip", sha256=SHA256, pause=0) == SHA256
    assert [asked for _, asked in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert names(tmp_path) == ["a.zip"]


def test_lost_connection_is_resumed_by_the_next_run(server, tmp_path):
    server.cut_after = [1_000_000] + [0] * 10
    message = refusal(fetch, server.url("a.zip"), tmp_path / "a.zip", pause=0)
    assert "1000000 bytes are kept" in message and "the next run goes on" in message
    assert not (tmp_path / "a.zip").exists()
    server.cut_after, server.requests = [], []
    assert fetch(server.url("a.zip"), tmp_path / "a.zip", pause=0) == SHA256
    assert server.requests == [("a.zip", "bytes=1000000-")]


def test_killed_download_is_resumed(server, tmp_path):
    code = (
        "import gen4det.data.download as d, os, sys\n"
        "d.CHUNK = 100_000\n"
        "update = d.transfer_bar\n"
        "class Bar:\n"
        "    def __init__(self, *a): self.n = 0\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *a): pass\n"
        "    def update(self, n):\n"
        "        self.n += n\n"
        "        if self.n >= 700_000: os.kill(os.getpid(), 9)\n"
        "d.transfer_bar = Bar\n"
        "d.fetch(sys.argv[1], sys.argv[2])\n"
    )
    url, target = server.url("a.zip"), tmp_path / "a.zip"
    assert subprocess.run([sys.executable, "-c", code, url, str(target)]).returncode == -9
    assert not target.exists()
    server.requests = []
    assert fetch(url, target, sha256=SHA256) == SHA256
    assert server.requests == [("a.zip", "bytes=700000-")]


def test_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    server.cut_after = [1_000_000]
    assert fetch(server.url("a.zip"), tmp_path / "a.zip", pause=0) == SHA256


def test_server_without_validators_starts_over(server, tmp_path):
    """Nothing would tell if the file had been replaced between the two halves."""
    server.validators = False
    server.cut_after = [1_000_000]
    assert fetch(server.url("a.zip"), tmp_path / "a.zip", pause=0) == SHA256
    assert [asked for _, asked in server.requests] == [None, None]


def test_server_without_lengths(server, tmp_path):
    server.lengths = False
    assert fetch(server.url("a.zip"), tmp_path / "a.zip", pause=0) == SHA256
    assert probe(server.url("a.zip")).size is None


@pytest.mark.parametrize("size", [3_000_000, 1_000])
def test_file_replaced_between_two_runs_is_fetched_anew(server, tmp_path, size):
    server.cut_after = [1_000_000] + [0] * 10
    refusal(fetch, server.url("a.zip"), tmp_path / "a.zip", pause=0)
    server.cut_after = []
    server.files["a.zip"] = bytes(size)
    fetch(server.url("a.zip"), tmp_path / "a.zip", pause=0)
    assert (tmp_path / "a.zip").read_bytes() == bytes(size)


def test_wrong_checksum_is_refused_and_deleted(server, tmp_path):
    message = refusal(fetch, server.url("a.zip"), tmp_path / "a.zip", sha256="0" * 64)
    assert message == (
        f"{server.url('a.zip')}: SHA-256 is {SHA256}, expected {'0' * 64}; the download was deleted"
    )
    assert names(tmp_path) == []


def test_wrong_size_is_refused_before_the_first_byte(server, tmp_path):
    message = refusal(fetch, server.url("a.zip"), tmp_path / "a.zip", size=5)
    assert message.endswith("the server has 3000000 bytes, expected 5")
    assert names(tmp_path) == []


def test_missing_file_is_refused_at_once(server, tmp_path):
    assert refusal(fetch, server.url("b.zip"), tmp_path / "b.zip").endswith("b.zip: HTTP 404 Not Found")
    assert refusal(probe, server.url("b.zip")).endswith("b.zip: HTTP 404 Not Found")
    assert len(server.requests) == 2 and names(tmp_path) == []


def test_busy_server_is_asked_again(server, tmp_path):
    server.statuses = [503, 429, 500]
    assert fetch(server.url("a.zip"), tmp_path / "a.zip", pause=0) == SHA256
    server.statuses = [503] * 10
    assert "HTTP 503" in refusal(fetch, server.url("a.zip"), tmp_path / "b.zip", pause=0)
    assert len(server.statuses) == 5  # gave up after five fruitless attempts


def test_server_that_cannot_be_reached(tmp_path):
    with FileServer() as server:
        url = server.url("a.zip")
    assert "cannot be reached" in refusal(fetch, url, tmp_path / "a.zip", pause=0)
    assert "cannot be reached" in refusal(probe, url, pause=0)


def test_too_little_disk_is_told_before_the_first_byte(server, tiny_disk):
    message = refusal(fetch, server.url("a.zip"), tiny_disk / "a.zip")
    assert message.startswith(f"{tiny_disk}: the rest of http://") and "GB of disk are free" in message
    assert list(tiny_disk.iterdir()) == []


def test_disk_that_fills_up_on_the_way(server, tiny_disk):
    server.lengths = False  # so that nobody could know beforehand
    message = refusal(fetch, server.url("a.zip"), tiny_disk / "a.zip")
    assert message == f"{tiny_disk / 'a.zip.part'}: No space left on device; what was fetched is kept"
    assert not (tiny_disk / "a.zip").exists()


# --- archives -------------------------------------------------------------------------------------


FILES = {"data/a.txt": b"a" * 5000, "data/b/c.txt": b"c", "readme.txt": b"r"}


@pytest.mark.parametrize(("suffix", "pack"), [("zip", zipped), ("tar", tarred)])
def test_unpacking_keeps_the_part_that_is_wanted(tmp_path, suffix, pack):
    archive = tmp_path / f"a.{suffix}"
    archive.write_bytes(pack(FILES))
    unpack(archive, "data", tmp_path / "out" / "data")
    unpack(archive, "readme.txt", tmp_path / "out" / "readme.txt")
    assert names(tmp_path / "out") == ["data/a.txt", "data/b/c.txt", "readme.txt"]
    assert (tmp_path / "out" / "data" / "a.txt").read_bytes() == FILES["data/a.txt"]
    assert "no 'images' in the archive" in refusal(unpack, archive, "images", tmp_path / "out" / "images")
    assert names(tmp_path / "out") == ["data/a.txt", "data/b/c.txt", "readme.txt"]


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/tmp/evil.txt", "data/../../evil.txt", "C:/evil.txt", "..\\evil"]
)
@pytest.mark.parametrize(("suffix", "pack"), [("zip", zipped), ("tar", tarred)])
def test_archives_cannot_write_outside_their_folder(tmp_path, suffix, pack, name):
    archive = tmp_path / "sub" / f"a.{suffix}"
    archive.parent.mkdir()
    archive.write_bytes(pack(FILES | {name: b"evil"}))
    message = refusal(unpack, archive, "data", tmp_path / "sub" / "data")
    assert "points outside its folder; nothing was unpacked" in message
    assert names(tmp_path) == [f"sub/a.{suffix}"]


@pytest.mark.parametrize("target", ["/etc", "../..", "/etc/passwd"])
def test_archives_cannot_link_outside_their_folder(tmp_path, target):
    link = tarfile.TarInfo("data/link")
    link.type, link.linkname = tarfile.SYMTYPE, target
    (tmp_path / "a.tar").write_bytes(tarred({"data/link": link}))
    refusal(unpack, tmp_path / "a.tar", "data", tmp_path / "data")
    member = zipfile.ZipInfo("data/link")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, target)
    assert "is a link" in refusal(unpack, tmp_path / "a.zip", "data", tmp_path / "data")
    assert names(tmp_path) == ["a.tar", "a.zip"]


@pytest.mark.parametrize(("suffix", "pack"), [("zip", zipped), ("tar", tarred)])
def test_truncated_archives_are_refused(tmp_path, suffix, pack):
    archive = tmp_path / f"a.{suffix}"
    content = pack(FILES | {"data/noise": CONTENT})
    archive.write_bytes(content[: len(content) // 2])
    assert "truncated or damaged" in refusal(unpack, archive, "data", tmp_path / "data")
    assert names(tmp_path) == [archive.name]


def test_damaged_archive_is_refused(tmp_path):
    content = bytearray(zipped({"data/noise": CONTENT}))
    content[1_000_000] ^= 255
    (tmp_path / "a.zip").write_bytes(content)
    assert "truncated or damaged" in refusal(unpack, tmp_path / "a.zip", "data", tmp_path / "data")
    assert names(tmp_path) == ["a.zip"]


def test_too_little_disk_for_what_comes_out(tiny_disk):
    (tiny_disk / "a.zip").write_bytes(zipped({"data/zeros": bytes(2_000_000)}))
    message = refusal(unpack, tiny_disk / "a.zip", "data", tiny_disk / "data")
    assert "unpacking" in message and "GB of disk are free" in message
    assert names(tiny_disk) == ["a.zip"]


# --- the registry ---------------------------------------------------------------------------------


def registered(server, name: str, **changes) -> RegisteredFile:
    facts = {
        "version": "1", "url": server.url(name), "bytes": None, "sha256": None, "into": "things",
        "contains": "data", "licence": "CC0", "citation": "nobody",
    }  # fmt: skip
    return RegisteredFile(**(facts | changes))


def test_the_shipped_registry_is_sound():
    registry = load_registry(REGISTRY)
    assert {"coco", "lvis", "voc"} <= registry.datasets.keys()
    places = [file.place for file in registry.files.values()]
    assert len(set(places)) == len(places)
    for dataset in registry.datasets.values():
        provided = [registry.files[file].place for file in dataset.files]
        for split in (dataset.train, dataset.val):
            assert bool(split.annotations) != bool(split.voc)
            wanted = (
                [split.annotations]
                if split.annotations
                else [f"{split.images}/{v.folder}" for v in split.voc]
            )
            for path in wanted:
                assert any(Path(path).is_relative_to(place) for place in provided)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"url": "file:///etc/passwd.zip"}, "files.a.url"),
        ({"into": "../elsewhere"}, "files.a.into"),
        ({"contains": "/etc"}, "files.a.contains"),
        ({"sha256": "abc"}, "files.a.sha256"),
        ({"md5": "abc"}, "files.a.md5: unknown key"),
    ],
)
def test_bad_registry_is_refused_in_one_line(tmp_path, change, expected):
    facts = {
        "version": "1", "url": "http://example.org/a.zip", "bytes": None, "sha256": None, "into": "a",
        "contains": "data", "licence": "CC0", "citation": "nobody",
    }  # fmt: skip
    path = tmp_path / "registry.yaml"
    path.write_text(yaml.safe_dump({"files": {"a": facts | change}, "datasets": {}}))
    assert refusal(load_registry, path).startswith(f"{path}: {expected}")


def test_first_download_is_recorded_and_enforced_afterwards(server, tmp_path):
    server.files["a.zip"] = zipped(FILES)
    files = {"a": registered(server, "a.zip")}
    obtain(files, tmp_path)
    assert names(tmp_path / "things") == ["data/a.txt", "data/b/c.txt"]
    locked = json.loads((tmp_path / LOCK_FILE).read_text())["a"]
    assert locked["sha256"] == hashlib.sha256(server.files["a.zip"]).hexdigest()

    server.requests = []
    obtain(files, tmp_path)
    assert server.requests == []  # everything is there

    (tmp_path / "things" / "data").rename(tmp_path / "moved")
    server.files["a.zip"] = zipped(FILES | {"data/new.txt": b"changed by somebody"})
    assert f"expected {locked['sha256']}" in refusal(obtain, files, tmp_path)
    assert not (tmp_path / "things" / "data").exists()


def test_nothing_is_fetched_while_one_of_the_files_is_missing(server, tmp_path):
    files = {"a": registered(server, "a.zip"), "b": registered(server, "b.zip", contains="other")}
    assert "b.zip: HTTP 404" in refusal(obtain, files, tmp_path)
    assert names(tmp_path) == [".lock"]


def test_space_for_everything_is_asked_for_first(server, tiny_disk):
    server.files["a.zip"] = server.files["b.zip"] = zipped({"data/noise": CONTENT[:80_000]})
    files = {"a": registered(server, "a.zip"), "b": registered(server, "b.zip", into="other")}
    message = refusal(obtain, files, tiny_disk)
    assert "downloading and unpacking a, b takes 0.00 GB" in message
    assert names(tiny_disk) == [".lock"]


def test_damaged_archive_of_the_server_is_fetched_anew(server, tmp_path):
    whole = zipped(FILES)
    server.files["a.zip"] = whole[:-30]
    files = {"a": registered(server, "a.zip")}
    assert "truncated or damaged" in refusal(obtain, files, tmp_path)
    assert names(tmp_path) == [".lock"]
    server.files["a.zip"] = whole
    obtain(files, tmp_path)
    assert names(tmp_path / "things") == ["data/a.txt", "data/b/c.txt"]


def test_archive_that_points_outside_is_fetched_anew(server, tmp_path):
    server.files["a.zip"] = zipped(FILES | {"../evil.txt": b"evil"})
    files = {"a": registered(server, "a.zip")}
    assert "points outside its folder" in refusal(obtain, files, tmp_path / "d")
    assert names(tmp_path) == ["d/.lock"]
    server.files["a.zip"] = zipped(FILES)
    obtain(files, tmp_path / "d")
    assert names(tmp_path / "d" / "things") == ["data/a.txt", "data/b/c.txt"]


def test_what_does_not_fit_when_unpacked_is_not_downloaded_again(server, tiny_disk):
    server.files["a.zip"] = zipped({"data/noise": CONTENT[:30_000], "data/zeros": bytes(150_000)})
    files = {"a": registered(server, "a.zip")}
    (tiny_disk / "something").write_bytes(bytes(80_000))
    assert "unpacking" in refusal(obtain, files, tiny_disk)
    assert names(tiny_disk) == [".lock", "something", "things/a.zip"]
    (tiny_disk / "something").unlink()
    server.requests = []
    obtain(files, tiny_disk)
    assert server.requests == [] and names(tiny_disk / "things") == ["data/noise", "data/zeros"]


def test_damaged_archive_that_the_user_brought_is_left_to_them(server, tmp_path):
    archive = tmp_path / "things" / "a.zip"
    archive.parent.mkdir()
    archive.write_bytes(zipped(FILES)[:-30])
    message = refusal(obtain, {"a": registered(server, "a.zip")}, tmp_path)
    assert message.endswith("delete it to download it") and archive.exists()


def test_archive_that_the_user_brought_is_used(server, tmp_path):
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "a.zip").write_bytes(zipped(FILES))
    obtain({"a": registered(server, "a.zip")}, tmp_path)
    assert server.requests == []
    assert names(tmp_path / "things") == ["data/a.txt", "data/b/c.txt"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.zip").write_bytes(zipped(FILES))
    wrong = registered(server, "a.zip", into="other", sha256="0" * 64)
    assert "SHA-256" in refusal(obtain, {"b": wrong}, tmp_path)


def test_two_jobs_that_want_the_same_file_take_turns(server, tmp_path):
    server.files["a.zip"] = zipped(FILES)
    jobs = [
        threading.Thread(target=obtain, args=({"a": registered(server, "a.zip")}, tmp_path)) for _ in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(patience(300))
    assert [name for name, _ in server.requests] == ["a.zip", "a.zip"]  # one probe, one download
    assert names(tmp_path / "things") == ["data/a.txt", "data/b/c.txt"]


# --- whole data sets ------------------------------------------------------------------------------


def test_lvis_takes_its_images_from_both_folders_of_coco(server, tmp_path, caplog):
    server.files = {
        "lvis_v1_train.json.zip": zipped(
            {"lvis_v1_train.json": lvis_file(["train2017/000000000001.jpg", "train2017/000000000002.jpg"])}
        ),
        "lvis_v1_val.json.zip": zipped(
            {"lvis_v1_val.json": lvis_file(["train2017/000000000003.jpg", "val2017/000000000004.jpg"])}
        ),
        "train2017.zip": zipped({f"train2017/00000000000{i}.jpg": jpeg(i) for i in (1, 2, 3)}),
        "val2017.zip": zipped({"val2017/000000000004.jpg": jpeg(4)}),
    }
    registry = yaml.safe_load(REGISTRY.read_text())
    for file in registry["files"].values():
        file["url"], file["bytes"] = server.url(file["url"].rpartition("/")[2]), None
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(registry))
    settings = DownloadDataset(
        source="download",
        dataset="lvis",
        registry=str(tmp_path / "registry.yaml"),
        folder=str(tmp_path / "results" / "downloads"),
    )
    output = tmp_path / "results" / "data" / "lvis" / "dataset.json"
    with caplog.at_level(logging.INFO):
        prepare_public("lvis", settings, output)
    assert "1 annotations left out: 99 (box [2, 2, 10, 0]: zero area)" in caplog.text

    (tmp_path / "results").rename(tmp_path / "moved")  # nothing in it points back
    dataset = load_dataset(tmp_path / "moved" / "data" / "lvis" / "dataset.json")
    val = dataset.val.load()
    assert [image_name(image) for image in val["images"]] == [
        "train2017/000000000003.jpg", "val2017/000000000004.jpg",
    ]  # fmt: skip
    for image in val["images"]:
        assert dataset.val.images.image(image_name(image)).shape == (30, 40, 3)
    assert len(dataset.train.load()["annotations"]) == 2
    assert dataset.declared == dataset.train.load()["categories"]
    assert not list((tmp_path / "moved" / "downloads").rglob("*.zip"))


def test_voc_becomes_a_coco_style_data_set(server, tmp_path):
    server.files = {
        "VOCtrainval_06-Nov-2007.tar": voc_archive("2007", "trainval", True),
        "VOCtest_06-Nov-2007.tar": voc_archive("2007", "test", False),
        "VOCtrainval_11-May-2012.tar": voc_archive("2012", "trainval", False),
    }
    registry = yaml.safe_load(REGISTRY.read_text())
    for file in registry["files"].values():
        file["url"], file["bytes"] = server.url(file["url"].rpartition("/")[2]), None
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(registry))
    job = {
        "source": "download", "dataset": "voc", "registry": str(tmp_path / "registry.yaml"),
        "folder": str(tmp_path / "downloads"),
    }  # fmt: skip
    output = tmp_path / "data" / "voc" / "dataset.json"
    command = [sys.executable, "-m", "gen4det.stages.download"]
    result = subprocess.run(
        [*command, "--settings", json.dumps({"settings": job}), "--output", str(output)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    dataset = load_dataset(output)
    train, val = dataset.train.load(), dataset.val.load()
    assert [image_name(image) for image in train["images"]] == [
        "2007-trainval/VOC2007/JPEGImages/000001.jpg",
        "2007-trainval/VOC2007/JPEGImages/000007.jpg",
        "2012-trainval/VOC2012/JPEGImages/000001.jpg",
        "2012-trainval/VOC2012/JPEGImages/000007.jpg",
    ]
    dog, person = val["annotations"][:2]
    assert (dog["bbox"], dog["category_id"], dog["iscrowd"]) == ([0, 0, 40, 30], 12, 0)
    assert (person["bbox"], person["area"], person["iscrowd"]) == ([4, 5, 1, 4], 4, 1)
    assert not any(annotation["iscrowd"] for annotation in train["annotations"])
    record = json.loads((output.parent / "dataset.json.record.json").read_text())
    assert record["settings"]["dataset"] == "voc"


def test_unknown_data_set_is_refused_with_what_there_is(tmp_path):
    settings = DownloadDataset(
        source="download", dataset="lviss", registry=str(REGISTRY), folder=str(tmp_path)
    )
    message = refusal(prepare_public, "lvis", settings, tmp_path / "dataset.json")
    assert message == f"{REGISTRY}: no data set is called 'lviss'; did you mean 'lvis'?"
