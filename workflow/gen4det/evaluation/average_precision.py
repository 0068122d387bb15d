"""Average precision after COCO and LVIS, boxes and masks, through faster-coco-eval.

The numbers equal those of pycocotools and of the official lvis package. faster-coco-eval 1.8 by itself
departs from the latter in three places, which are settled here before it sees the data:

- LVIS keeps the 300 best detections of an *image*; maxDets counts per image *and category*.
- LVIS ignores annotations and detections without area.
- LVIS does not know crowds, but annotations marked "ignore".

It also stops with an IndexError when an image without annotations has only detections of unverified
categories; those detections never count and are left out here as well.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from gen4det.core.errors import InputError
from gen4det.data.masks import area_of_rle, segmentation_to_rle
from gen4det.evaluation.prediction_settings import MAX_DETECTIONS
from gen4det.evaluation.settings import METRICS, Kind, MeasureSettings

AREAS = ("all", "small", "medium", "large")
CATEGORIES_AT_ONCE = 64
"""faster-coco-eval holds a table of images x categories; categories are independent, so slices bound it."""
NEVER_IN_RANGE = 1e12
"""An area in px^2 beyond every size class: the evaluator then neither rewards nor punishes a match."""

_log = logging.getLogger(__name__)


def average_precision(
    ground_truth: dict, detections: list[dict], *, protocol: str, settings: MeasureSettings | None = None
) -> dict:
    """Measure detections against a COCO or LVIS annotation file.

    Args:
        ground_truth: the annotation file. For APr, APc and APf the categories carry "frequency" (r, c, f),
            for the base and novel means "split" (base, novel); without them these means are undefined. LVIS
            images carry neg_category_ids and not_exhaustive_category_ids.
        detections: COCO results: image_id, category_id, score in [0, 1], bbox [x, y, w, h] in pixels and, for
            masks, segmentation as a compressed run-length mask. Order matters only between equal scores.
        protocol: "coco" (Lin et al. 2014; 100 detections per image and category, crowds) or "lvis" (Gupta et
            al. 2019; 300 per image, federated negatives).

    Returns:
        {"box": {METRICS: AP on 0-100 or None}, "mask": {...}, "per_category": [{"id", "name", "frequency",
        "split", "images_val", "instances_val", "box_AP", "mask_AP"}, ...]}, categories by id. AP is the mean
        over IoU 0.50:0.05:0.95, 101 recall points and the categories that have ground truth; None = there is
        no such category. A kind that was not measured is None.

    Raises:
        InputError: a detection names an image or category that is not in the ground truth; a region that is
            to be measured is missing; a LVIS image does not say which categories were verified.
    """
    settings = settings or MeasureSettings()
    if protocol not in MAX_DETECTIONS:
        raise InputError(f"evaluation protocol {protocol!r}; expected one of {', '.join(MAX_DETECTIONS)}")
    kinds = settings.kinds or _kinds(ground_truth, detections)
    _check_ground_truth(ground_truth, protocol, kinds)
    _check_detections(ground_truth, detections, kinds)
    categories = sorted(ground_truth["categories"], key=lambda category: category["id"])
    result: dict = {"box": None, "mask": None}
    per_category = {kind: [None] * len(categories) for kind in result}
    numbered, found = _numbered(ground_truth, detections)
    columns = [{**category, "id": number} for number, category in enumerate(categories, start=1)]
    for kind in kinds:
        table = _precision_table(numbered, found, kind, protocol, settings, columns)
        result[kind] = _summary(table, categories)
        per_category[kind] = [_mean(table[:, k, 0]) for k in range(len(categories))]
    images, instances = _counts(ground_truth)
    result["per_category"] = [
        {
            "id": category["id"],
            "name": category["name"],
            "frequency": category.get("frequency"),
            "split": category.get("split"),
            "images_val": len(images[category["id"]]),
            "instances_val": instances[category["id"]],
            "box_AP": per_category["box"][k],
            "mask_AP": per_category["mask"][k],
        }
        for k, category in enumerate(categories)
    ]
    return result


def _summary(table: np.ndarray, categories: list[dict]) -> dict[str, float | None]:
    """Means over a (10 IoU thresholds, categories, 4 area classes) table of precisions, NaN = undefined."""

    def mean(
        threshold: float | None = None, area: str = "all", **wanted: str | tuple[str, ...]
    ) -> float | None:
        columns = [
            k
            for k, category in enumerate(categories)
            if all(
                category.get(key) in (value if isinstance(value, tuple) else (value,))
                for key, value in wanted.items()
            )
        ]
        rows = slice(None) if threshold is None else round((threshold - 0.5) / 0.05)
        return _mean(table[rows][..., columns, AREAS.index(area)])

    values = {
        "AP": mean(),
        "AP50": mean(0.50),
        "AP75": mean(0.75),
        "APs": mean(area="small"),
        "APm": mean(area="medium"),
        "APl": mean(area="large"),
        "APr": mean(frequency="r"),
        "APc": mean(frequency="c"),
        "APf": mean(frequency="f"),
        "APbase": mean(split="base"),
        "APnovel": mean(split="novel"),
        "APbasenovel": mean(split=("base", "novel")),
        "AP50base": mean(0.50, split="base"),
        "AP50novel": mean(0.50, split="novel"),
        "AP50basenovel": mean(0.50, split=("base", "novel")),
    }
    return {name: values[name] for name in METRICS}


def _mean(values: np.ndarray) -> float | None:
    defined = values[~np.isnan(values)]
    return float(100 * defined.mean()) if defined.size else None


def _precision_table(
    ground_truth: dict,
    detections: list[dict],
    kind: Kind,
    protocol: str,
    settings: MeasureSettings,
    categories: list[dict],
) -> np.ndarray:
    """Precision in [0, 1], mean over recall: (10 IoU thresholds, categories, 4 areas); NaN = undefined."""
    annotations = [_annotation(a, kind, size) for a, size in _with_sizes(ground_truth)]
    results = [_detection(d, kind) for d in detections]
    if protocol == "lvis":
        annotations = _lvis_annotations(annotations)
        results = _lvis_detections(results, annotations, ground_truth["images"])
    small, medium = settings.area_limits
    ranges = {"small": [0, small], "medium": [small, medium], "large": [medium, 1e5**2]}
    parts = []
    for start in range(0, len(categories), CATEGORIES_AT_ONCE):
        part = categories[start : start + CATEGORIES_AT_ONCE]
        ids = {category["id"] for category in part}
        truth = COCO(
            {
                "images": ground_truth["images"],
                "annotations": [a for a in annotations if a["category_id"] in ids],
                # The groups are averaged here; the evaluator only insists that there is a frequency.
                "categories": [{"id": c["id"], "name": c["name"], "frequency": "f"} for c in part],
            }
        )
        evaluator = COCOeval_faster(
            truth,
            truth.loadRes([r for r in results if r["category_id"] in ids]),
            {"box": "bbox", "mask": "segm"}[kind],
            ranges=ranges,
            lvis_style=protocol == "lvis",
            print_function=_log.debug,
        )
        evaluator.params.maxDets = [MAX_DETECTIONS[protocol]]
        evaluator.evaluate()
        evaluator.accumulate()
        parts.append(np.asarray(evaluator.eval["precision"])[..., -1])  # (T, R, K, A); -1 = undefined
    precision = np.concatenate(parts, axis=2)
    return np.where(precision > -1, precision, np.nan).mean(axis=1)


# --- what the evaluator is given ------------------------------------------------------------------


def _numbered(ground_truth: dict, detections: list[dict]) -> tuple[dict, list[dict]]:
    """The same with images and categories counted from 1, in the order of their ids.

    The evaluator keeps ids as float64 and fails at negative ones: neighbours beyond 2**53 would be one image.
    """
    image = {record["id"]: n for n, record in enumerate(sorted(ground_truth["images"], key=_id), start=1)}
    category = {c["id"]: n for n, c in enumerate(sorted(ground_truth["categories"], key=_id), start=1)}

    def numbered(record: dict) -> dict:
        numbers = {"image_id": image[record["image_id"]], "category_id": category[record["category_id"]]}
        return {**record, **numbers}

    images = []
    for record in ground_truth["images"]:
        lists = {"neg_category_ids", "not_exhaustive_category_ids"} & record.keys()
        verified = {key: [category[c] for c in record[key] if c in category] for key in lists}
        images.append({**record, "id": image[record["id"]], **verified})
    annotations = [numbered(annotation) for annotation in ground_truth["annotations"]]
    return {"images": images, "annotations": annotations}, [numbered(detection) for detection in detections]


def _id(record: dict) -> int:
    return record["id"]


def _with_sizes(ground_truth: dict) -> Iterator[tuple[dict, tuple[int, int]]]:
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    for number, annotation in enumerate(ground_truth["annotations"], start=1):
        # A match is noted by the id of the partner: an annotation with id 0 would never count as matched.
        yield annotation | {"id": number}, sizes[annotation["image_id"]]


def _annotation(annotation: dict, kind: Kind, size: tuple[int, int]) -> dict:
    entry = {key: annotation[key] for key in ("id", "image_id", "category_id", "bbox", "area")}
    entry |= {"iscrowd": annotation.get("iscrowd", 0), "ignore": annotation.get("ignore", 0)}
    if kind == "mask":
        entry["segmentation"] = segmentation_to_rle(annotation["segmentation"], *size)
    return entry


def _detection(detection: dict, kind: Kind) -> dict:
    # Only the region that is measured: given both, the evaluators class masks by the area of their boxes.
    key = "bbox" if kind == "box" else "segmentation"
    return {name: detection[name] for name in ("image_id", "category_id", "score", key)}


def _lvis_annotations(annotations: list[dict]) -> list[dict]:
    return [
        annotation | {"iscrowd": 0, "area": NEVER_IN_RANGE if annotation["ignore"] else annotation["area"]}
        for annotation in annotations
        if annotation["area"] > 0
    ]


def _lvis_detections(detections: list[dict], annotations: list[dict], images: list[dict]) -> list[dict]:
    per_image = defaultdict(list)
    for detection in detections:
        per_image[detection["image_id"]].append(detection)
    verified = {image["id"]: set(image["neg_category_ids"]) for image in images}
    for annotation in annotations:
        verified[annotation["image_id"]].add(annotation["category_id"])
    kept = []
    for image_id, found in per_image.items():
        if len(found) > MAX_DETECTIONS["lvis"]:
            found = sorted(found, key=lambda d: d["score"], reverse=True)[: MAX_DETECTIONS["lvis"]]
        kept += [d for d in found if d["category_id"] in verified[image_id] and _area(d) > 0]
    return kept


def _area(detection: dict) -> float:
    if "bbox" in detection:
        return detection["bbox"][2] * detection["bbox"][3]
    return area_of_rle(detection["segmentation"])


def _kinds(ground_truth: dict, detections: list[dict]) -> tuple[Kind, ...]:
    """What can be measured. A detector that finds nothing is held to whatever the ground truth has."""
    expected = all(annotation.get("segmentation") for annotation in ground_truth["annotations"])
    found = any("segmentation" in detection for detection in detections) or not detections
    return ("box", "mask") if expected and found else ("box",)


def _regions(kinds: Iterable[Kind]) -> list[str]:
    return ["bbox" if kind == "box" else "segmentation" for kind in kinds]


def _check_ground_truth(ground_truth: dict, protocol: str, kinds: Iterable[Kind]) -> None:
    if protocol == "lvis":
        for image in ground_truth["images"]:
            for key in ("neg_category_ids", "not_exhaustive_category_ids"):
                if key not in image:
                    raise InputError(f"ground truth: image {image['id']}: no {key}, which LVIS needs")
    needed = ["bbox", "area", *_regions(kinds)]
    for annotation in ground_truth["annotations"]:
        for key in needed:
            if key not in annotation:
                raise InputError(f"ground truth: annotation {annotation['id']}: no {key}")


def _check_detections(ground_truth: dict, detections: list[dict], kinds: Iterable[Kind]) -> None:
    images = {image["id"] for image in ground_truth["images"]}
    categories = {category["id"] for category in ground_truth["categories"]}
    needed = _regions(kinds)
    for number, detection in enumerate(detections):
        where = f"detection {number}"
        if detection["image_id"] not in images:
            raise InputError(f"{where}: image {detection['image_id']} is not in the ground truth")
        if detection["category_id"] not in categories:
            raise InputError(f"{where}: category {detection['category_id']} is not in the ground truth")
        if not math.isfinite(detection["score"]):
            raise InputError(f"{where}: the score is {detection['score']}; expected a finite number")
        for key in needed:
            if key not in detection:
                raise InputError(f"{where}: no {key}, which is to be measured")


def _counts(ground_truth: dict) -> tuple[dict[int, set[int]], dict[int, int]]:
    """Images and non-crowd instances per category id."""
    images: dict[int, set[int]] = defaultdict(set)
    instances: dict[int, int] = defaultdict(int)
    for annotation in ground_truth["annotations"]:
        images[annotation["category_id"]].add(annotation["image_id"])
        instances[annotation["category_id"]] += not annotation.get("iscrowd", 0)
    return images, instances
