"""The aesthetic filter: CLIP's embedding, the predictor on it, and scores of shards and of real images."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_detector import tiny_dataset

from gen4det.core.errors import InputError
from gen4det.data.datasets import load_dataset
from gen4det.data.images import ShardWriter, encode_image
from gen4det.engines.base import Generated
from gen4det.engines.shard_writer import ShardInProgress
from gen4det.filters.aesthetic import AestheticHead, AestheticRater, calibration, load_head, models_digest
from gen4det.filters.clip import ImageEncoder
from gen4det.stages import calibrate, rate

CLIP = Path(__file__).parents[2] / "resources/miniature/clip"


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder(str(CLIP))


@pytest.fixture
def head(tmp_path, encoder) -> Path:
    """A predictor with random weights for the miniature's CLIP."""
    torch.manual_seed(0)
    folder = tmp_path / "head"
    folder.mkdir()
    save_file(AestheticHead(encoder.width).state_dict(), folder / "model.safetensors")
    return folder


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (70, 95), (120, 66)]
    return [rng.integers(0, 256, (*sizes[i % 3], 3), dtype=np.uint8) for i in range(count)]


# --- the predictor --------------------------------------------------------------------------------------


def test_the_public_predictor_has_as_many_parameters():
    assert sum(p.numel() for p in AestheticHead(768).parameters()) == 927_969


def test_the_length_of_an_embedding_does_not_change_its_score():
    head = AestheticHead(16).eval()
    embeddings = torch.randn(5, 16)
    torch.testing.assert_close(head(embeddings), head(37.5 * embeddings))
    assert not torch.allclose(head(embeddings), head(embeddings + 1))


def test_scores_are_those_of_the_published_inference_code():
    """Layers one after the other, without activations, on the vector divided by its norm."""
    head = AestheticHead(16).eval()
    vector = torch.randn(16)
    value = vector / vector.norm()
    for name in ("0", "2", "4", "6", "7"):
        state = head.state_dict()
        value = state[f"layers.{name}.weight"] @ value + state[f"layers.{name}.bias"]
    torch.testing.assert_close(head(vector[None]), value)


def test_published_weights_are_read_as_tensors_only(tmp_path):
    folder = tmp_path / "head"
    folder.mkdir()
    original = AestheticHead(16)
    torch.save(original.state_dict(), folder / "sac+logos+ava1-l14-linearMSE.pth")
    embeddings = torch.randn(3, 16)
    torch.testing.assert_close(load_head(folder, 16)(embeddings), original.eval()(embeddings))
    with pytest.raises(InputError, match="length 16; those of the CLIP model have 96"):
        load_head(folder, 96)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("content", [pickle.dumps(Bomb()), b"nothing", b""])
def test_unusable_predictors_are_refused_in_one_line(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "head.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"head\.pth: "):
        load_head(tmp_path, 16)
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(InputError, match="no such folder"):
        load_head(tmp_path / "nowhere", 16)
    (tmp_path / "second.pth").write_bytes(b"")
    with pytest.raises(InputError, match="one .pth file, found 2"):
        load_head(tmp_path, 16)


# --- CLIP -----------------------------------------------------------------------------------------------


def by_hand(image: np.ndarray, edge: int, mean: list[float], std: list[float]) -> np.ndarray:
    """What the paper's code does: bicubic to the shorter side, the centre, three channels normalised."""
    picture = Image.fromarray(image)
    scale = edge / min(picture.size)
    size = tuple(edge if side == min(picture.size) else int(side * scale) for side in picture.size)
    left, top = ((side - edge) // 2 for side in size)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.float32)
    pixels = pixels[top : top + edge, left : left + edge] / 255
    return ((pixels - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(64, 64), (63, 1), (31, 97), (427, 640), (65, 1000), (3, 300)])
def test_preprocessing_is_clips_own_to_the_pixel(encoder, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(encoder.preprocess(image), by_hand(image, 64, [0.5] * 3, [0.5] * 3))


def test_no_torchvision_is_needed(encoder):
    assert "torchvision" not in sys.modules and type(encoder.processor).__name__ == "CLIPImageProcessorPil"


def test_preprocessing_in_its_older_spelling_and_of_other_models(tmp_path):
    shutil.copytree(CLIP, tmp_path / "clip")
    file = tmp_path / "clip/preprocessor_config.json"
    older = {"size": 64, "crop_size": 64, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 3}
    file.write_text(json.dumps(older | {"feature_extractor_type": "CLIPFeatureExtractor"}))
    image = pictures(2)[1]
    found = ImageEncoder(str(tmp_path / "clip")).preprocess(image)
    np.testing.assert_array_equal(found, by_hand(image, 64, [0.5] * 3, [0.25] * 3))
    file.write_text(json.dumps(older | {"crop_size": 96}))
    with pytest.raises(InputError, match="cuts images to 96 x 96 px, the image tower takes 64 x 64 px"):
        ImageEncoder(str(tmp_path / "clip"))
    file.write_text(json.dumps(older | {"size": {"width": 3}}))
    with pytest.raises(InputError, match="cannot be loaded"):
        ImageEncoder(str(tmp_path / "clip"))


def test_embeddings_are_those_of_the_whole_model(encoder):
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(CLIP, dtype=torch.float32).eval()
    pixels = np.stack([encoder.preprocess(image) for image in pictures(3)])
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(torch.from_numpy(pixels)).pooler_output)
    torch.testing.assert_close(encoder.embed(pixels), expected)


def test_folders_of_other_models_are_refused(tmp_path):
    shutil.copytree(CLIP, tmp_path / "clip")
    (tmp_path / "clip/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="of type 'bert', expected a CLIP model"):
        ImageEncoder(str(tmp_path / "clip"))
    (tmp_path / "clip/preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        ImageEncoder(str(tmp_path / "clip"))


def test_the_digest_follows_both_models(tmp_path, head):
    shutil.copytree(CLIP, tmp_path / "clip")
    before = models_digest(str(tmp_path / "clip"), None, str(head))
    assert before == models_digest(str(CLIP), None, str(head))
    config = tmp_path / "clip/config.json"
    config.write_text(config.read_text() + " ")
    assert models_digest(str(tmp_path / "clip"), None, str(head)) != before
    assert models_digest("owner/clip", "abc", str(head)) != models_digest("owner/clip", "abd", str(head))


# --- scores ---------------------------------------------------------------------------------------------


def test_scores_do_not_depend_on_batches_or_threads(tmp_path, head):
    images = pictures(7)
    with ShardWriter(tmp_path / "0.zip") as writer:
        for number, image in enumerate(images):
            writer.add(f"{number}.png", encode_image(image, "png"))
    records = [{"id": number, "file_name": f"0.zip/{number}.png"} for number in range(7)]
    from gen4det.data.images import ImageStore

    rater = AestheticRater(str(CLIP), None, str(head))
    store = ImageStore(tmp_path)
    one = rater.rate(store, records, batch_size=1)
    np.testing.assert_allclose(rater.rate(store, records, batch_size=3, workers=3), one, rtol=1e-5)
    assert len(set(one)) == 7 and rater.rate(store, []) == []


def test_the_threshold_is_the_arithmetic_mean():
    measured = calibration([1.0, 2.0, 6.0])
    assert (measured["mean"], measured["images"]) == (3.0, 3)
    assert measured["quantiles"]["50"] == 2.0


def run(stage, monkeypatch, head: Path | None, *arguments: object) -> None:
    foundation = {"clip": {"path": str(CLIP)}, "aesthetic": {"path": str(head)} if head else None}
    settings = json.dumps({"settings": {"foundation": foundation}})
    monkeypatch.setattr(sys, "argv", ["stage", "--settings", settings, *map(str, arguments)])
    stage.main()


def test_shards_are_rated_and_the_training_images_calibrated(tmp_path, monkeypatch, head):
    tiny_dataset(tmp_path / "data")
    dataset = load_dataset(tmp_path / "data/dataset.json")
    run(calibrate, monkeypatch, head, "--dataset", dataset.path, "--output", tmp_path / "aesthetic.json")
    measured = json.loads((tmp_path / "aesthetic.json").read_text())
    assert measured["split"] == dataset.train.hash
    records = dataset.train.load()["images"]
    rater = AestheticRater(str(CLIP), None, str(head))
    scores = rater.rate(dataset.train.images, records)
    assert measured["images"] == len(records) and measured["mean"] == pytest.approx(np.mean(scores), rel=1e-6)

    drawn = [Generated({"index": i, "seed": 0}, image) for i, image in enumerate(pictures(4))]
    with ShardInProgress(tmp_path / "00000", {"run": 1}, 0, 1) as work:
        work.save(0, drawn)
        work.assemble([0], [])
    run(rate, monkeypatch, head, "--shard", tmp_path / "00000.arrow", "--output", tmp_path / "rated.json")
    rated = json.loads((tmp_path / "rated.json").read_text())
    assert sorted(rated["scores"]) == [str(1_000_000 + i) for i in range(4)]
    assert rated["models"] == measured["models"]
    record = json.loads((tmp_path / "rated.json.record.json").read_text())
    assert record["images"] == 4


def test_a_missing_predictor_is_one_line(tmp_path, monkeypatch):
    tiny_dataset(tmp_path)
    with pytest.raises(InputError, match="foundation.aesthetic: no model given"):
        run(calibrate, monkeypatch, None, "--dataset", tmp_path / "dataset.json", "--output", tmp_path / "a")
