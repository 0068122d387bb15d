"""The numbers are those of pycocotools and of the official lvis package, to the last digit that matters."""

import contextlib
import copy
import io
import json
import logging

import matplotlib  # noqa: F401  (imported before np.float is patched, see `official_lvis`)
import numpy as np
import numpy.ma  # noqa: F401
import pycocotools.mask as mask_utils
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gen4det.core.errors import InputError
from gen4det.evaluation.average_precision import average_precision
from gen4det.evaluation.settings import METRICS, EvaluationSettings

TOLERANCE = 1e-6  # on 0-100
KINDS = {"box": ("bbox", "bbox"), "mask": ("segm", "segmentation")}
WORLDS = [(seed, False) for seed in range(16)] + [(seed, True) for seed in range(2)]
SHARED_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


# --- random worlds ------------------------------------------------------------------------------


def ellipse(height, width, box):
    x, y, w, h = box
    rows, columns = np.mgrid[:height, :width]
    return ((columns + 0.5 - x - w / 2) / (w / 2)) ** 2 + ((rows + 0.5 - y - h / 2) / (h / 2)) ** 2 <= 1


def rectangle(height, width, box):
    mask = np.zeros((height, width), bool)
    x, y, w, h = (int(side) for side in box)
    mask[y : y + h, x : x + w] = True
    return mask


def rle(mask):
    code = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode()}


def random_world(seed, protocol, *, crowded=False):
    """A ground truth and detections with ties, crowds, duplicates, empty masks and partial negative lists.

    The last category has no ground truth, image ids are in no order, scores are often equal. `crowded`: 250
    to 420 detections per image instead of 0 to 25.
    """
    rng = np.random.default_rng(seed)
    categories = [
        {"id": 3 * k + 2, "name": f"c{k}", "frequency": "rcf"[k % 3], "split": ("base", "novel")[k % 2]}
        for k in range(6)
    ]
    ids = [category["id"] for category in categories]
    images, annotations, detections = [], [], []
    for number in rng.permutation(8):
        height, width = (int(side) for side in rng.integers(40, 200, 2))
        image = {"id": int(number) * 7 + 1, "height": height, "width": width}

        def box(height=height, width=width):
            w, h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
            return (int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), w, h)

        truth = []
        for _ in range(rng.integers(0, 7)):
            region, category = box(), int(rng.choice(ids[:-1]))
            if truth and rng.random() < 0.2:
                region, category = truth[-1]
            truth.append((region, category))
            shape = ellipse if rng.random() < 0.5 else rectangle
            mask = shape(height, width, region)
            x, y, w, h = region
            crowd = protocol == "coco" and rng.random() < 0.15
            polygon = shape is rectangle and not crowd and rng.random() < 0.6
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [float(side) for side in region],
                    "area": float(mask.sum()),
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]] if polygon else rle(mask),
                    "iscrowd": int(crowd),
                    "ignore": int(protocol == "lvis" and rng.random() < 0.1),
                }
            )
        for _ in range(rng.integers(250, 420) if crowded else rng.integers(0, 26)):
            region, category = box(), int(rng.choice(ids))
            if truth and rng.random() < 0.6:
                (x, y, w, h), category = truth[rng.integers(len(truth))]
                dx, dy, dw, dh = (int(shift) for shift in rng.integers(-6, 7, 4))
                x, y = min(max(x + dx, 0), width - 1), min(max(y + dy, 0), height - 1)
                region = (x, y, max(1, min(w + dw, width - x)), max(1, min(h + dh, height - y)))
            mask = (ellipse if rng.random() < 0.5 else rectangle)(height, width, region)
            if rng.random() < 0.02:
                mask[:] = False
            jitter = rng.random(4) if rng.random() < 0.5 else np.zeros(4)
            tied = rng.random() < 0.6
            detections.append(
                {
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [float(side + shift) for side, shift in zip(region, jitter, strict=True)],
                    "score": float(rng.integers(0, 11)) / 10 if tied else float(rng.random()),
                    "segmentation": rle(mask),
                }
            )
        if protocol == "lvis":
            present = sorted({category for _, category in truth})
            others = [category for category in ids if category not in present]
            image["neg_category_ids"] = [category for category in others if rng.random() < 0.4]
            image["not_exhaustive_category_ids"] = [c for c in present if rng.random() < 0.3]
        images.append(image)
    detections = [detections[number] for number in rng.permutation(len(detections))]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


# --- the references -----------------------------------------------------------------------------


def only(detections, kind):
    region = KINDS[kind][1]
    names = ("image_id", "category_id", "score", region)
    return [{name: copy.deepcopy(detection[name]) for name in names} for detection in detections]


def percent(value):
    return None if value == -1 else 100 * float(value)


def coco_reference(ground_truth, detections, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(ground_truth)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(only(detections, kind)), KINDS[kind][0])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = dict(zip(SHARED_NAMES, (percent(value) for value in evaluation.stats[:6]), strict=True))
    return values, per_category(evaluation.eval["precision"][:, :, :, 0, -1])


@pytest.fixture
def official_lvis(monkeypatch, tmp_path):
    """The official package; it needs np.float, which numpy dropped. Modules that test for the name must have
    been imported before (numpy.ma, matplotlib)."""
    monkeypatch.setattr(np, "float", float, raising=False)
    lvis = pytest.importorskip("lvis")
    logging.getLogger("lvis").setLevel(logging.ERROR)

    def reference(ground_truth, detections, kind):
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(ground_truth))
        truth = lvis.LVIS(str(path))
        found = lvis.LVISResults(truth, only(detections, kind))
        evaluation = lvis.LVISEval(truth, found, KINDS[kind][0])
        evaluation.run()
        names = (*SHARED_NAMES, "APr", "APc", "APf")
        values = {name: percent(evaluation.results[name]) for name in names}
        return values, per_category(evaluation.eval["precision"][:, :, :, 0])

    return reference


def per_category(precision):
    """precision (T, R, K) with -1 = undefined."""
    return [percent(precision[:, :, k].mean()) for k in range(precision.shape[2])]


def assert_same(measured, references):
    for kind, (values, categories) in references.items():
        for name, value in values.items():
            assert measured[kind][name] == pytest.approx(value, abs=TOLERANCE), (kind, name)
        found = [entry[f"{kind}_AP"] for entry in measured["per_category"]]
        assert found == pytest.approx(categories, abs=TOLERANCE), kind


# --- equality -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "crowded"), WORLDS)
def test_coco_equals_pycocotools(seed, crowded):
    ground_truth, detections = random_world(seed, "coco", crowded=crowded)
    measured = average_precision(ground_truth, detections, protocol="coco")
    assert_same(measured, {kind: coco_reference(ground_truth, detections, kind) for kind in KINDS})


def test_base_novel_and_all_are_means_over_pycocotools_classes_not_rounded():
    """Of neither kind is one class more; the last class has no object."""
    truth, detections = random_world(3, "coco")
    truth["categories"][2] |= {"split": None}
    box = average_precision(truth, detections, protocol="coco")["box"]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = copy.deepcopy(truth)
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(only(detections, "box")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    at_half = 100 * evaluation.eval["precision"][0, :, :, 0, -1].mean(0)  # -100 where there is no object
    split = [category["split"] for category in truth["categories"]]
    for name, kinds in (("base", {"base"}), ("novel", {"novel"}), ("basenovel", {"base", "novel"})):
        classes = [value for value, kind in zip(at_half, split, strict=True) if kind in kinds and value >= 0]
        assert len(classes) > 1
        assert box[f"AP50{name}"] == pytest.approx(np.mean(classes), abs=TOLERANCE)
        assert box[f"AP50{name}"] != round(box[f"AP50{name}"], 1)


@pytest.mark.parametrize(("seed", "crowded"), WORLDS)
def test_lvis_equals_the_official_package(official_lvis, seed, crowded):
    ground_truth, detections = random_world(seed, "lvis", crowded=crowded)
    measured = average_precision(ground_truth, detections, protocol="lvis")
    assert_same(measured, {kind: official_lvis(ground_truth, detections, kind) for kind in KINDS})


def test_slices_of_categories_change_nothing(monkeypatch):
    ground_truth, detections = random_world(3, "lvis")
    whole = average_precision(ground_truth, detections, protocol="lvis")
    monkeypatch.setattr("gen4det.evaluation.average_precision.CATEGORIES_AT_ONCE", 2)
    assert average_precision(ground_truth, detections, protocol="lvis") == whole


def test_inputs_are_left_alone():
    for protocol in ("coco", "lvis"):
        ground_truth, detections = random_world(1, protocol)
        before = copy.deepcopy((ground_truth, detections))
        average_precision(ground_truth, detections, protocol=protocol)
        assert (ground_truth, detections) == before


def first_images(data, count):
    images = sorted(data["images"], key=lambda image: image["id"])[:count]
    ids = {image["id"] for image in images}
    return data | {"images": images, "annotations": [a for a in data["annotations"] if a["image_id"] in ids]}


def test_real_photographs(shared_dir, official_lvis):
    annotations = shared_dir / "data" / "coco-mini" / "annotations"
    for file, protocol in (("instances_val2017.json", "coco"), ("lvis_v1_val.json", "lvis")):
        ground_truth = first_images(json.loads((annotations / file).read_text()), 30)
        rng = np.random.default_rng(0)
        sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
        detections = []
        for annotation in ground_truth["annotations"]:
            height, width = sizes[annotation["image_id"]]
            x, y, w, h = annotation["bbox"]
            x, y = max(0, x + rng.normal(0, w / 15)), max(0, y + rng.normal(0, h / 15))
            region = (int(x), int(y), max(1, int(w)), max(1, int(h)))
            detections.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": annotation["category_id"],
                    "bbox": [float(side) for side in region],
                    "score": round(float(rng.random()), 2),
                    "segmentation": rle(ellipse(height, width, region)),
                }
            )
        reference = coco_reference if protocol == "coco" else official_lvis
        measured = average_precision(ground_truth, detections, protocol=protocol)
        assert_same(measured, {kind: reference(ground_truth, detections, kind) for kind in KINDS})


# --- corner cases, worked out by hand -------------------------------------------------------------


def small_world(**image):
    box = [10.0, 10.0, 20.0, 20.0]
    region = rle(rectangle(64, 64, box))
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": box,
        "area": 400.0,
        "segmentation": region,
    }
    detection = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": box, "segmentation": region}
    truth = {
        "images": [{"id": 1, "height": 64, "width": 64, **image}],
        "annotations": [annotation],
        "categories": [
            {"id": 1, "name": "cup", "frequency": "r", "split": "novel"},
            {"id": 2, "name": "key", "frequency": "f", "split": "base"},
        ],
    }
    return truth, detection


FEDERATED = {"neg_category_ids": [], "not_exhaustive_category_ids": []}


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_no_detections_is_zero_where_there_is_truth_and_null_elsewhere(protocol):
    truth, _ = small_world(**FEDERATED)
    measured = average_precision(truth, [], protocol=protocol)
    for kind in KINDS:
        assert measured[kind] == {name: None for name in METRICS} | dict.fromkeys(
            ("AP", "AP50", "AP75", "APs", "APr", "APnovel", "APbasenovel", "AP50novel", "AP50basenovel"), 0.0
        )
    assert [entry["mask_AP"] for entry in measured["per_category"]] == [0.0, None]
    assert [entry["instances_val"] for entry in measured["per_category"]] == [1, 0]


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
@pytest.mark.parametrize("first", [-40, 2 * 10**16, 2**62])
def test_ids_are_names_whatever_their_size(protocol, first):
    """Negative ones, and neighbours that are one number as float64."""
    truth, found = random_world(3, protocol)
    expected = average_precision(truth, found, protocol=protocol)
    numbers = {kind: {r["id"]: first + n for n, r in enumerate(sorted(truth[kind], key=lambda r: r["id"]))}
               for kind in ("images", "categories", "annotations")}  # fmt: skip
    for kind in numbers:
        for record in truth[kind]:
            record["id"] = numbers[kind][record["id"]]
    for image in truth["images"]:
        for key in {"neg_category_ids", "not_exhaustive_category_ids"} & image.keys():
            image[key] = [numbers["categories"][identifier] for identifier in image[key]]
    for record in (*truth["annotations"], *found):
        record["image_id"] = numbers["images"][record["image_id"]]
        record["category_id"] = numbers["categories"][record["category_id"]]
    measured = average_precision(truth, found, protocol=protocol)
    assert {kind: measured[kind] for kind in KINDS} == {kind: expected[kind] for kind in KINDS}
    names = [{**entry, "id": None} for entry in expected["per_category"]]
    assert [{**entry, "id": None} for entry in measured["per_category"]] == names
    assert [entry["id"] for entry in measured["per_category"]] == list(numbers["categories"].values())


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_perfect_detections_are_a_hundred_on_the_scale_of_the_papers(protocol):
    truth, detection = small_world(**FEDERATED)
    measured = average_precision(truth, [detection], protocol=protocol)
    assert measured["mask"]["AP"] == measured["box"]["APr"] == measured["box"]["AP50novel"] == 100
    assert measured["box"]["APbase"] is None and measured["box"]["APl"] is None
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_an_annotation_with_id_zero_counts(protocol):
    truth, detection = small_world(**FEDERATED)
    truth["annotations"][0]["id"] = 0
    assert average_precision(truth, [detection], protocol=protocol)["box"]["AP"] == 100


def test_lvis_keeps_the_300_best_of_an_image_over_all_categories():
    truth, detection = small_world(neg_category_ids=[2], not_exhaustive_category_ids=[])
    for count, expected in ((299, 100.0), (300, 0.0)):
        better = [detection | {"category_id": 2, "score": 0.9}] * count
        measured = average_precision(truth, [*better, detection], protocol="lvis")
        assert measured["mask"]["APr"] == expected


def test_lvis_does_not_punish_what_nobody_verified():
    wrong = {"bbox": [40.0, 40.0, 10.0, 10.0], "segmentation": rle(rectangle(64, 64, [40, 40, 10, 10]))}
    for federated, expected in ((FEDERATED, 50.0), (FEDERATED | {"not_exhaustive_category_ids": [1]}, 100.0)):
        truth, detection = small_world(**federated)
        found = [detection | wrong | {"score": 0.9}, detection]
        assert average_precision(truth, found, protocol="lvis")["mask"]["AP"] == pytest.approx(expected)
    truth, detection = small_world(**FEDERATED)
    truth["images"].append({"id": 2, "height": 64, "width": 64, **FEDERATED})
    elsewhere = detection | {"image_id": 2, "score": 0.9}
    assert average_precision(truth, [elsewhere, detection], protocol="lvis")["mask"]["AP"] == 100
    truth["images"][1] |= {"neg_category_ids": [1]}
    assert average_precision(truth, [elsewhere, detection], protocol="lvis")["mask"]["AP"] == 50


def test_masks_are_sized_by_their_masks_and_limits_can_be_set():
    truth, detection = small_world()
    settings = EvaluationSettings(area_limits=(100, 300))
    measured = average_precision(truth, [detection], protocol="coco", settings=settings)
    assert measured["mask"]["APl"] == 100 and measured["mask"]["APs"] is None
    with pytest.raises(ValueError, match="increasing"):
        EvaluationSettings(area_limits=(300, 100))


def test_box_detectors_need_no_masks():
    truth, detection = small_world()
    del detection["segmentation"]
    measured = average_precision(truth, [detection], protocol="coco")
    assert measured["mask"] is None and measured["box"]["AP"] == 100
    with pytest.raises(InputError, match="no segmentation"):
        settings = EvaluationSettings(kinds=("box", "mask"))
        average_precision(truth, [detection], protocol="coco", settings=settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "detection 0: image 9"),
        ({"category_id": 9}, "detection 0: category 9"),
        ({"score": float("nan")}, "detection 0: the score"),
    ],
)
def test_foreign_detections_are_refused(change, message):
    truth, detection = small_world()
    with pytest.raises(InputError, match=message):
        average_precision(truth, [detection | change], protocol="coco")


def test_lvis_without_verified_categories_is_refused():
    truth, detection = small_world()
    with pytest.raises(InputError, match="image 1: no neg_category_ids"):
        average_precision(truth, [detection], protocol="lvis")
