"""The judge of canvases: what counts as an answer, and the whole way from renderings to a judgement."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from gen4det.core.errors import InputError
from gen4det.data.annotations import index_annotations, load_annotations
from gen4det.data.datasets import load_dataset
from gen4det.data.manifests import write_manifest
from gen4det.data.masks import mask_to_rle, rle_to_mask
from gen4det.detection.settings import DetectorSettings, TrainSettings
from gen4det.detection.training import train
from gen4det.engines.base import Generated, Instance
from gen4det.engines.shard_writer import ShardInProgress
from gen4det.miniature.calls import by_category, call_labels
from gen4det.miniature.canvas_judge_settings import CanvasJudge
from gen4det.miniature.canvases import random_regions, render_canvas
from gen4det.miniature.categories import BY_NAME, CATEGORIES
from gen4det.miniature.renderings import at_detection_size, label_of, render_singles
from gen4det.stages import judge_canvases

NAMES, GROUPS = judge_canvases.NAMES, judge_canvases.GROUPS
SNOWMAN, KEY = BY_NAME["snowman"].id, BY_NAME["key"].id


def rectangle(x, y, w, h, size=64) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def record(category, x, y, w, h, score=None) -> dict:
    found = {
        "category_id": category,
        "bbox": [float(side) for side in (x, y, w, h)],
        "segmentation": mask_to_rle(rectangle(x, y, w, h)),
    }
    return found if score is None else found | {"score": score}


# --- answers ----------------------------------------------------------------------------------------


def test_a_label_of_the_hat_alone_is_asked_about_the_snowman():
    hat, whole = record(SNOWMAN, 20, 5, 20, 10), record(SNOWMAN, 15, 5, 30, 50, score=0.9)
    (call,) = call_labels([hat], [whole], min_score=0.3)
    assert call.right and call.box_iou == pytest.approx(200 / 1500) == pytest.approx(call.mask_iou)


def test_the_answer_is_the_most_certain_detection_about_the_object():
    label = record(KEY, 10, 10, 20, 20)
    detections = [
        record(KEY, 10, 10, 20, 20, score=0.5),
        record(SNOWMAN, 12, 10, 20, 20, score=0.7),
        record(KEY, 40, 40, 20, 20, score=0.99),  # of something else
    ]
    (call,) = call_labels([label], detections, min_score=0.3)
    assert call.called == SNOWMAN and not call.right


def test_without_a_certain_detection_there_is_no_answer():
    label = record(KEY, 10, 10, 20, 20)
    for detections in (
        [],
        [record(KEY, 10, 10, 20, 20, score=0.2)],
        [record(KEY, 26, 26, 20, 20, score=0.9)],
    ):
        (call,) = call_labels([label], detections, min_score=0.3)
        assert call.called is None and call.box_iou == 0


def test_overlaps_equal_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(50):
        boxes = [[*rng.integers(0, 20, 2), *rng.integers(15, 40, 2)] for _ in range(2)]
        label, found = record(KEY, *boxes[0]), record(KEY, *boxes[1], score=1.0)
        (call,) = call_labels([label], [found], min_score=0)
        if call.called is not None:
            assert call.box_iou == pytest.approx(coco_mask.iou([found["bbox"]], [label["bbox"]], [0])[0, 0])
            masks = [rle_to_mask(it["segmentation"]) for it in (label, found)]
            assert call.mask_iou == pytest.approx((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())


def test_shares_by_category_and_group():
    label = record(KEY, 10, 10, 20, 20)
    right, wrong = record(KEY, 10, 10, 20, 20, score=0.9), record(SNOWMAN, 10, 10, 20, 20, score=0.9)
    cup = BY_NAME["cup"].id
    calls = [
        *call_labels([label], [right], 0.3),
        *call_labels([label], [wrong], 0.3),
        *call_labels([label], [], 0.3),
        *call_labels([record(cup, 0, 0, 9, 9)], [record(cup, 0, 0, 9, 9, score=1.0)], 0.3),
    ]
    found = by_category(calls, NAMES, GROUPS)
    assert (found["all"]["objects"], found["all"]["called"]) == (4, 0.5)
    assert (found["rare"]["objects"], found["rare"]["called"]) == (3, pytest.approx(1 / 3, abs=1e-4))
    assert found["common"] == {"objects": 0, "called": None, "box_iou": None, "mask_iou": None, "instead": {}}
    assert found["per_category"]["key"]["instead"] == {"nothing": 1, "snowman": 1}
    assert set(found["per_category"]) == {"key", "cup"}


# --- renderings -------------------------------------------------------------------------------------


def test_a_rendered_canvas_holds_one_exact_object_in_each_region():
    for seed in range(5):
        regions = random_regions(seed, 128)
        scene = render_canvas(regions, 128, 128, seed)
        assert scene.image.shape == (128, 128, 3) and len(scene.objects) == 4
        covered = np.zeros((128, 128), int)
        for region, placed in zip(regions, scene.objects, strict=True):
            x, y, w, h = region["core"]
            covered[y : y + h, x : x + w] += 1
            assert placed.category.id == region["category_id"]
            assert placed.mask[y : y + h, x : x + w].sum() == placed.mask.sum() > 24
            rows, columns = np.flatnonzero(placed.mask.any(1)), np.flatnonzero(placed.mask.any(0))
            assert placed.box == (columns[0], rows[0], len(set(range(columns[0], columns[-1] + 1))),
                                  rows[-1] - rows[0] + 1)  # fmt: skip
            assert 0.6 < max(placed.box[2:]) / min(w, h) < 1.0
        assert (covered == 1).all()
        assert np.array_equal(render_canvas(regions, 128, 128, seed).image, scene.image)
        assert not np.array_equal(render_canvas(regions, 128, 128, seed + 1).image, scene.image)


def test_a_canvas_of_something_unknown_is_refused():
    with pytest.raises(InputError, match="category 99: the miniature's renderer"):
        render_canvas([{"category_id": 99, "core": [0, 0, 64, 64]}], 64, 64, 0)


def test_single_objects_are_brought_to_sizes_of_the_detection_set():
    settings = CanvasJudge(samples=2)
    (image, _) = render_singles(settings, BY_NAME["cup"], 64)
    sides = []
    for seed in range(40):
        whole, (x, y, w, h) = at_detection_size(settings, image, seed)
        assert whole.shape == (128, 128, 3) and w == h and 0 <= x <= 128 - w and 0 <= y <= 128 - h
        inside = whole[int(y) : int(y + h), int(x) : int(x + w)].astype(int)
        assert np.abs(inside.mean((0, 1)) - image.mean((0, 1))).max() < 4  # the same picture
        sides.append(w * 0.74)  # the mean share of a picture that its object measures
    assert 17 <= min(sides) < 25 and 45 < max(sides) <= 59


# --- the whole way ----------------------------------------------------------------------------------


SETTINGS = {
    "canvases": 4, "scenes": 4, "iterations": 2, "min_score": 0.0, "samples": 2, "steps": 1,
    "repainted_scenes": 1,
}  # fmt: skip


def stage(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["judge_canvases", *map(str, arguments)])
    monkeypatch.setattr(judge_canvases, "ANSWERS", 3)  # an untrained detector finds hundreds of things
    judge_canvases.main()


@pytest.fixture(scope="module")
def detector(tmp_path_factory, request):
    """A detector that has hardly learned anything, and the renderings it learned from."""
    folder = tmp_path_factory.mktemp("judge")
    with pytest.MonkeyPatch.context() as patch:
        stage(patch, "render", "--settings", json.dumps(SETTINGS), "--output", folder / "dataset.json")
    root = request.config.rootpath
    settings = DetectorSettings(
        config=str(root / "config/detectors/miniature_mask_rcnn.py"),
        backbone_weights=str(root / "resources/miniature/backbone/model.safetensors"),
        iterations=2,
    )
    trained = train(
        TrainSettings(detector=settings), load_dataset(folder / "dataset.json"), [],
        folder / "weights.safetensors", fingerprint={},
    )  # fmt: skip
    assert trained.finished
    return folder / "weights.safetensors"


def test_renderings_are_a_data_set_with_all_categories_equally_likely(detector):
    data = load_annotations(detector.with_name("train.json"))
    assert load_dataset(detector.with_name("dataset.json")).declared == data["categories"]
    assert [category["id"] for category in data["categories"]] == [category.id for category in CATEGORIES]
    counts = [len(labels) for labels in index_annotations(data).values()]
    assert counts[:4] == [4] * 4 and len(counts) == 8 and all(1 <= count <= 5 for count in counts[4:])


def test_a_drawn_set_that_is_the_rendering_is_called_as_the_rendering_is(detector, monkeypatch, tmp_path):
    """Shards and manifest of an engine without a fault: both columns of the judgement must agree."""
    rows = [
        {"index": i, "batch": 0, "seed": i, "height": 128, "width": 128, "regions": random_regions(i, 128)}
        for i in range(3)
    ]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    judge = judge_canvases.Judge(CanvasJudge(**SETTINGS), detector, tmp_path, "cpu")
    generated = []
    for row in rows:
        scene = render_canvas(row["regions"], 128, 128, judge._seed("canvas", row["seed"]))
        labels = [label_of(placed) for placed in scene.objects]
        instances = [Instance(it["category_id"], it["bbox"], it["segmentation"]) for it in labels]
        generated.append(Generated(row, scene.image, instances, keep=row["index"] < 2))
    with ShardInProgress(tmp_path / "00000", {}, 0, 1) as work:
        work.save(0, generated)
        work.assemble([0], [{"id": category.id, "name": category.name} for category in CATEGORIES])
    rows_of_kept = tmp_path / "kept.jsonl"
    write_manifest(rows_of_kept, rows[:2])
    stage(
        monkeypatch, "judge", "--settings", json.dumps(SETTINGS), "--detector", detector,
        "--shards", tmp_path / "00000.arrow", "--manifest", rows_of_kept, "--device", "cpu",
        "--output", tmp_path / "judgement.json",
    )  # fmt: skip
    judgement = json.loads((tmp_path / "judgement.json").read_text())
    drawn, rendered = judgement["canvases"], judgement["rendered_canvases"]
    assert (drawn.pop("drawn"), drawn.pop("kept")) == (3, 2)
    assert drawn == rendered and drawn["all"]["objects"] == 8
    assert (tmp_path / "judgement.json.record.json").is_file()
    assert (tmp_path / "judgement" / "rendered_canvases.zip").is_file()


def test_the_shipped_models_are_judged_on_single_objects_and_boxes(detector, monkeypatch, tmp_path, request):
    resources = request.config.rootpath / "resources/miniature"
    stage(
        monkeypatch, "judge", "--settings", json.dumps(SETTINGS), "--detector", detector,
        "--diffusion", resources / "stable-diffusion", "--inpainting", resources / "gligen-inpainting",
        "--device", "cpu", "--output", tmp_path / "judgement.json",
    )  # fmt: skip
    judgement = json.loads((tmp_path / "judgement.json").read_text())
    for origin in ("drawn", "rendered"):
        for size in ("as_drawn", "at_detection_sizes"):
            found = judgement["singles"][origin][size]
            assert found["all"]["objects"] == 48 and set(found["per_category"]) == set(NAMES.values())
            assert "box_iou" not in found["all"]
    diversity = judgement["diversity"]
    assert diversity["mean"] > 0 and set(diversity["per_category"]) == set(NAMES.values())
    objects = {name: found["all"]["objects"] for name, found in judgement["inpainting"].items()}
    assert objects["alone"] == 1 and objects["together"] == objects["originals"] >= 1


def test_a_judgement_needs_a_detector(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="give the detector's weights"):
        stage(monkeypatch, "judge", "--settings", "{}", "--output", tmp_path / "judgement.json")
    with pytest.raises(InputError, match="none.json: no such file"):
        stage(
            monkeypatch, "judge", "--settings", "{}", "--output", tmp_path / "judgement.json",
            "--shards", tmp_path / "none.json",
        )  # fmt: skip
