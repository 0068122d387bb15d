"""Pretrained models from a hub on this machine: pinned, checked, resumed, used."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import constants, file_download
from public_data import names, refusal

from gen4det.data.download_lock import LOCK_FILE
from gen4det.data.hub import list_files
from gen4det.data.models import obtain_model
from gen4det.data.registry import RegisteredModel, load_registry

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = ROOT / "resources" / "data_registry.yaml"
BIG = np.random.default_rng(0).bytes(2_000_000)
FILES = {"config.json": b'{"a": 1}', "unet/config.json": b"{}", "unet/model.safetensors": BIG}
ABOUT = {"version": "1", "licence": "a licence", "citation": "somebody"}


class Hub:
    """What the hub answers, on a server of files. Large files lie elsewhere, as they do there."""

    def __init__(self, server, monkeypatch, home: Path):
        self.server = server
        monkeypatch.setenv("HF_ENDPOINT", server.url("").rstrip("/"))
        monkeypatch.setenv("HF_HOME", str(home))
        # What the library reads once, when it is imported.
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)  # between its attempts

    def publish(self, files: dict[str, bytes], *, hub: str = "owner/name") -> str:
        """Make a commit the newest; earlier ones stay."""
        commit = hashlib.sha1(json.dumps({k: v.hex() for k, v in files.items()}).encode()).hexdigest()
        siblings = []
        for path, content in files.items():
            sha256 = hashlib.sha256(content).hexdigest()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"rfilename": path, "size": len(content), "blobId": blob}
            place = f"{hub}/resolve/{commit}/{path}"
            self.server.headers[place] = {"X-Repo-Commit": commit, "ETag": f'"{blob}"'}
            if path.endswith(".safetensors"):
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 135}
                elsewhere = self.server.url(f"storage/{sha256}").replace("127.0.0.1", "localhost")
                self.server.redirects[place] = elsewhere
                self.server.headers[place] |= {
                    "X-Linked-Etag": f'"{sha256}"',
                    "X-Linked-Size": str(len(content)),
                }
                place = f"storage/{sha256}"
            self.server.files[place] = content
            siblings.append(entry)
        answer = {
            "_id": "1",
            "id": hub,
            "modelId": hub,
            "sha": commit,
            "siblings": siblings,
            "private": False,
        }
        for name in (f"api/models/{hub}", f"api/models/{hub}/revision/{commit}"):
            self.server.files[f"{name}?blobs=true"] = json.dumps(answer).encode()
        return commit

    def downloaded(self) -> list[str]:
        """Paths that were asked for, but for those the large files are redirected to."""
        return [name.rpartition("/")[2] for name, _ in self.server.requests if not name.startswith("storage")]


@pytest.fixture
def hub(file_server, monkeypatch, tmp_path) -> Hub:
    return Hub(file_server, monkeypatch, tmp_path / "home")


def registry(tmp_path: Path, *, weights: dict | None = None, **model) -> Path:
    """A registry with the hub's model `a` and, if given, the single file `b`."""
    entry = ABOUT | {"hub": "owner/name", "revision": None, "files": ["*.json", "unet/*"]} | model
    path = tmp_path / "registry.yaml"
    values = {"files": {}, "datasets": {}, "models": {"a": entry}}
    if weights:
        values["weights"] = {"b": ABOUT | {"bytes": None, "sha256": None} | weights}
    path.write_text(yaml.safe_dump(values))
    return path


def lock(folder: Path, name: str = "a") -> dict:
    return json.loads((folder / LOCK_FILE).read_text())[name]


# --- the hub --------------------------------------------------------------------------------------


def test_the_hub_tells_commit_sizes_and_checksums(hub):
    hub.publish(FILES | {"old.json": b"{}"})
    commit = hub.publish(FILES)
    for revision in (None, commit):
        assert list_files("owner/name", revision)[0] == commit
    files = {file.path: file for file in list_files("owner/name", None)[1]}
    assert {path: file.size for path, file in files.items()} == {p: len(c) for p, c in FILES.items()}
    assert files["unet/model.safetensors"].sha256 == hashlib.sha256(BIG).hexdigest()
    assert files["config.json"].sha256 is None and len(files["config.json"].blob) == 40


def test_a_gated_model_needs_a_token_and_takes_it(hub, tmp_path, monkeypatch):
    hub.publish(FILES)
    hub.server.secret = "hf_secret"
    source, folder = registry(tmp_path), tmp_path / "d"
    message = refusal(obtain_model, "a", source, folder)
    assert message.startswith("owner/name: its owner asks you to accept the licence")
    assert message.endswith("then set HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    obtain_model("a", source, folder)
    assert (folder / "models/a/unet/model.safetensors").read_bytes() == BIG


def test_without_network_a_model_is_what_is_there_or_one_line(hub, tmp_path, monkeypatch):
    source, folder = registry(tmp_path), tmp_path / "d"
    hub.publish(FILES)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids to download it" in refusal(obtain_model, "a", source, folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    there = obtain_model("a", source, folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert obtain_model("a", source, folder) == there


def test_files_in_the_hubs_own_cache_are_not_downloaded_again(hub, tmp_path):
    commit = hub.publish(FILES)
    snapshot = tmp_path / "home/hub/models--owner--name/snapshots" / commit / "unet"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(BIG)
    obtain_model("a", registry(tmp_path), tmp_path / "d")
    assert not any(name.startswith("storage") for name, _ in hub.server.requests)
    assert (tmp_path / "d/models/a/unet/model.safetensors").read_bytes() == BIG


def test_files_with_paths_that_lead_outside_are_not_taken(hub):
    evil = ("../evil.json", "/tmp/evil.json", "unet/../../evil", "unet//evil", ".evil", "a\\..\\evil", "")
    hub.publish(FILES | dict.fromkeys(evil, b"{}"))
    assert {file.path for file in list_files("owner/name", None)[1]} == FILES.keys()


# --- downloads ------------------------------------------------------------------------------------


def test_a_model_is_downloaded_and_described(hub, tmp_path, caplog):
    caplog.set_level("INFO")
    commit = hub.publish(FILES | {"unet/model.bin": b"pickled", "README.md": b"not wanted"})
    facts = obtain_model("a", registry(tmp_path, files=["*.json", "unet/*.[js]*"]), tmp_path / "d")
    assert {name: (tmp_path / "d/models/a" / name).read_bytes() for name in FILES} == FILES
    assert names(tmp_path / "d") == [".lock", LOCK_FILE, *(f"models/a/{name}" for name in sorted(FILES))]
    sums = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in FILES.items()}
    assert facts == ABOUT | {"name": "a", "hub": "owner/name", "commit": commit, "files": sums}
    assert "a licence" in caplog.text


def test_a_model_stays_at_the_commit_of_its_first_download(hub, tmp_path):
    source, folder = registry(tmp_path), tmp_path / "d"
    first = hub.publish(FILES)
    obtain_model("a", source, folder)
    assert hub.publish(FILES | {"config.json": b'{"a": 2}'}) != first
    hub.server.requests.clear()
    assert obtain_model("a", source, folder)["commit"] == first
    assert hub.server.requests == []  # all is there and known
    (folder / "models/a/config.json").unlink()
    obtain_model("a", source, folder)
    assert hub.server.requests == [(f"owner/name/resolve/{first}/config.json", None)]
    assert names(folder / "models") == [f"a/{name}" for name in sorted(FILES)]
    assert (folder / "models/a/config.json").read_bytes() == FILES["config.json"]


def test_a_lost_connection_is_taken_up_where_it_was_lost(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # what is written at once; 10 MB
    hub.publish(FILES)
    whole = [1_000_000_000] * 3  # the list, two small files
    hub.server.cut_after = [*whole, 700_000]
    obtain_model("a", registry(tmp_path), tmp_path / "d")
    assert [asked for name, asked in hub.server.requests if name.startswith("storage")] == [
        None,
        "bytes=700000-",
    ]
    assert (tmp_path / "d/models/a/unet/model.safetensors").read_bytes() == BIG


def test_an_interrupted_download_goes_on_with_the_same_commit_and_the_files_that_are_missing(hub, tmp_path):
    source, folder = registry(tmp_path), tmp_path / "d"
    first = hub.publish(FILES)
    whole = [1_000_000_000] * 3  # the list, two small files
    hub.server.cut_after = [*whole, *[0] * 10]
    assert refusal(obtain_model, "a", source, folder).startswith(
        "owner/name: RemoteProtocolError: peer closed"
    )
    assert lock(folder)["commit"] == first and not lock(folder)["complete"]
    there = [name for name in names(folder / "models") if ".cache/" not in name]
    assert there == ["a/config.json", "a/unet/config.json"]
    hub.publish(FILES | {"unet/model.safetensors": BIG[::-1]})
    hub.server.cut_after, hub.server.requests = [], []
    assert obtain_model("a", source, folder)["commit"] == first
    assert [name.partition("/")[0] for name, _ in hub.server.requests] == ["api", "storage"]
    assert (folder / "models/a/unet/model.safetensors").read_bytes() == BIG


def test_the_commit_of_the_registry_is_asked_for(hub, tmp_path):
    old = hub.publish(FILES)
    new = hub.publish(FILES | {"config.json": b'{"a": 2}'})
    folder = tmp_path / "d"
    assert obtain_model("a", registry(tmp_path, revision=old), folder)["commit"] == old
    hub.server.requests.clear()
    assert obtain_model("a", registry(tmp_path, revision=new), folder)["commit"] == new
    assert hub.downloaded() == [f"{new}?blobs=true", "config.json"]  # only what differs
    hub.server.files[f"api/models/owner/name/revision/{'0' * 40}?blobs=true"] = hub.server.files[
        "api/models/owner/name?blobs=true"
    ]
    unknown = registry(tmp_path, revision="0" * 40)
    assert f"answers with commit '{new}'" in refusal(obtain_model, "a", unknown, folder)


@pytest.mark.parametrize("path", ["config.json", "unet/model.safetensors"])
def test_wrong_bytes_are_refused_and_fetched_anew(hub, tmp_path, path):
    source, folder = registry(tmp_path), tmp_path / "d"
    commit = hub.publish(FILES)
    sha256 = hashlib.sha256(FILES[path]).hexdigest()
    place = f"storage/{sha256}" if path.endswith("safetensors") else f"owner/name/resolve/{commit}/{path}"
    hub.server.files[place] = bytes(len(FILES[path]))
    assert "the download was deleted" in refusal(obtain_model, "a", source, folder)
    assert not (folder / "models/a" / path).exists()
    hub.server.files[place] = FILES[path]
    obtain_model("a", source, folder)
    assert (folder / "models/a" / path).read_bytes() == FILES[path]


def test_a_damaged_file_on_disk_is_fetched_anew(hub, tmp_path):
    source, folder = registry(tmp_path), tmp_path / "d"
    hub.publish(FILES)
    obtain_model("a", source, folder)
    (folder / "models/a/unet/model.safetensors").write_bytes(BIG[::-1])
    obtain_model("a", source, folder)
    assert (folder / "models/a/unet/model.safetensors").read_bytes() == BIG


def test_a_missing_model_is_refused_in_one_line_until_it_is_there(hub, tmp_path):
    source, folder = registry(tmp_path), tmp_path / "d"
    message = refusal(obtain_model, "a", source, folder)
    assert message.startswith("owner/name: HTTP 404 from ") and "it does not exist, or is private" in message
    hub.publish(FILES | {"unet/model.bin": b"x"})
    lacking = registry(tmp_path, files=["*.json", "vae/*"])
    assert "owner/name: no file vae/* at commit" in refusal(obtain_model, "a", lacking, folder)
    assert names(folder) == [".lock"]
    obtain_model("a", registry(tmp_path), folder)
    message = refusal(obtain_model, "c", source, folder)
    assert message == f"{source}: no model is called 'c'; known: a"


@pytest.mark.parametrize(
    "answer", [b"<html>log in first</html>", b'{"sha": "1"}', b'{"id": "a", "siblings": []}']
)
def test_what_is_no_hub_is_refused(hub, tmp_path, answer):
    hub.server.files["api/models/owner/name?blobs=true"] = answer
    assert refusal(obtain_model, "a", registry(tmp_path), tmp_path / "d").startswith("owner/name: ")
    assert not (tmp_path / "d/models").exists()


def test_too_little_disk_is_told_before_the_first_byte_and_mended(hub, tmp_path, tiny_disk):
    source = registry(tmp_path)
    hub.publish(FILES | {"unet/model.safetensors": BIG[:180_000]})
    (tiny_disk / "something").write_bytes(bytes(150_000))
    message = refusal(obtain_model, "a", source, tiny_disk)
    assert "downloading a takes 0.00 GB" in message and "GB of disk are free" in message
    assert hub.downloaded() == ["name?blobs=true"] and not (tiny_disk / "models").exists()
    (tiny_disk / "something").unlink()
    obtain_model("a", source, tiny_disk)
    assert (tiny_disk / "models/a/unet/model.safetensors").read_bytes() == BIG[:180_000]


# --- models of one file ---------------------------------------------------------------------------


def test_a_single_file_is_recorded_and_enforced_afterwards(file_server, tmp_path):
    file_server.files["x+y.pth"] = BIG
    sha256 = hashlib.sha256(BIG).hexdigest()
    source, folder = registry(tmp_path, weights={"url": file_server.url("x%2By.pth")}), tmp_path / "d"
    assert obtain_model("b", source, folder)["files"] == {"x+y.pth": {"bytes": len(BIG), "sha256": sha256}}
    target = folder / "models/b/x+y.pth"
    file_server.requests.clear()
    obtain_model("b", source, folder)
    assert file_server.requests == []

    target.write_bytes(b"damaged")
    assert "delete it to download it" in refusal(obtain_model, "b", source, folder)
    target.unlink()
    file_server.files["x+y.pth"] = BIG[::-1]
    assert f"expected {sha256}; the download was deleted" in refusal(obtain_model, "b", source, folder)
    file_server.files["x+y.pth"] = BIG
    file_server.cut_after = [10**9, 500_000]
    obtain_model("b", source, folder, pause=0)
    assert file_server.requests[-1][1] == "bytes=500000-" and target.read_bytes() == BIG


def test_the_first_digits_of_a_checksum_are_enough(file_server, tmp_path):
    file_server.files["w.pth"] = BIG
    sha256 = hashlib.sha256(BIG).hexdigest()
    weights = {"url": file_server.url("w.pth"), "sha256": "0" * 8}
    folder = tmp_path / "d"
    assert "expected 00000000" in refusal(obtain_model, "b", registry(tmp_path, weights=weights), folder)
    source = registry(tmp_path, weights=weights | {"sha256": sha256[:8]})
    assert obtain_model("b", source, folder)["files"]["w.pth"]["sha256"] == sha256
    contrary = registry(tmp_path, weights=weights)
    assert "the registry says 00000000" in refusal(obtain_model, "b", contrary, folder)


def test_a_lock_file_that_is_none_is_refused(file_server, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    for text, expected in (("{", "not a JSON file"), ("[1]", "not the checksums")):
        (folder / LOCK_FILE).write_text(text)
        source = registry(tmp_path, weights={"url": file_server.url("w.pth")})
        assert refusal(obtain_model, "b", source, folder).startswith(f"{folder / LOCK_FILE}: {expected}")


# --- the shipped registry -------------------------------------------------------------------------


def test_the_shipped_registry_has_the_models_of_the_papers():
    known = load_registry(REGISTRY)
    assert {
        "stable-diffusion-1-4", "stable-diffusion-1-5", "stable-diffusion-2-0-base", "gligen-1-4-inpainting",
        "clip-vit-l-14", "aesthetic-predictor", "resnet50-imagenet",
    } <= {*known.known_models()}  # fmt: skip
    for name in known.known_models():
        entry = known.model(name)
        assert entry.licence and entry.citation and entry.version
    assert known.weights["aesthetic-predictor"].file == "sac+logos+ava1-l14-linearMSE.pth"
    assert known.weights["resnet50-imagenet"].sha256 in known.weights["resnet50-imagenet"].file


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.json", "config.json", True),
        ("*.json", "unet/config.json", False),
        ("tokenizer/*", "tokenizer/vocab.json", True),
        ("tokenizer/*", "tokenizer", False),
        ("unet/*.safetensors", "unet/a.fp16.bin", False),
    ],
)
def test_patterns_stay_in_their_folder(pattern, path, expected):
    assert RegisteredModel.matches(path, pattern) == expected


def test_what_the_registry_takes_of_a_pipeline_is_what_its_loader_reads(hub, tmp_path):
    """A pipeline with everything the loader must not want, through the stage, into the loader."""
    from gen4det.diffusion.pipelines import load_text_to_image
    from gen4det.diffusion.settings import ModelSource

    pipeline = ROOT / "resources" / "miniature" / "stable-diffusion"
    files = {name: (pipeline / name).read_bytes() for name in names(pipeline)}
    more = {
        "safety_checker/model.safetensors": b"x",
        "unet/diffusion_pytorch_model.bin": b"x",
        "a.ckpt": b"x",
    }
    entry = load_registry(REGISTRY).models["stable-diffusion-1-4"]
    hub.publish(files | more)
    source = registry(tmp_path, files=list(entry.files))
    settings = {"name": "a", "registry": str(source), "folder": str(tmp_path / "d")}
    output = tmp_path / "d" / "models" / "a" / "download.json"
    done = subprocess.run(
        [sys.executable, "-m", "gen4det.stages.download_model", "--settings",
         json.dumps({"settings": settings}), "--output", str(output)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(output.read_text())["files"].keys() == files.keys()
    assert json.loads(Path(f"{output}.record.json").read_text())["settings"] == settings
    loaded = load_text_to_image(ModelSource(path=str(output.parent)))
    assert loaded.unet.config.in_channels == 4
