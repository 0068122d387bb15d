"""Easy and hard: whether a detector finds a real object (P.A. Attr of DetDiffusion). No torch."""

from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.provenance import write_json
from gen4det.data.annotations import index_annotations, is_object
from gen4det.engines.detdiffusion.settings import AttributeSettings
from gen4det.engines.settings import AskedDetector
from gen4det.filters.agreement import box_iou

FILE = "attributes.json"
EASY, HARD = "easy", "hard"


def difficulty(labels: list[dict], detections: list[list[float]], settings: AttributeSettings) -> list[str]:
    """Easy or hard for each object of one image.

    Easy is what some detection with a score above `min_score` overlaps by more than `min_iou`; one detection
    may make several objects easy.

    Args:
        labels: records with "bbox" [x, y, w, h] in pixels and "category_id".
        detections: [category id, score, x, y, w, h].
    """
    found = np.array([row for row in detections if row[1] > settings.min_score], float).reshape(-1, 6)
    if not labels:
        return []
    near = box_iou(np.array([label["bbox"] for label in labels]), found[:, 2:]) > settings.min_iou
    if settings.same_class:
        near &= np.array([label["category_id"] for label in labels])[:, None] == found[:, 0]
    return [EASY if is_easy else HARD for is_easy in near.any(1)]


def attributes_of(
    annotations: dict, detections: dict[str, list[list[float]]], settings: AttributeSettings
) -> dict[int, str]:
    """Annotation id -> "easy" or "hard" of all objects; crowds, and stuff unless it is asked for, have none.

    Args:
        annotations: COCO or LVIS dictionary.
        detections: by image id, as the stage `detect` stores them.
    """
    stuff = {it["id"] for it in annotations["categories"] if it.get("isthing", 1) == 0}
    found: dict[int, str] = {}
    for image, members in index_annotations(annotations).items():
        labels = [label for label in members if is_object(label)]
        asked = [label for label in labels if label["category_id"] not in stuff]
        if settings.stuff == "hard":
            found |= {label["id"]: HARD for label in labels}
        verdicts = difficulty(asked, detections.get(str(image), []), settings)
        found |= {label["id"]: verdict for label, verdict in zip(asked, verdicts, strict=True)}
    return found


def read_detections(path: str | Path, *, training_hash: str) -> dict:
    """What the stage `detect` found in the real training images.

    Raises:
        InputError: malformed, or of other images, or by a detector that was trained on another split.
    """
    data = read_json(path, "detections")
    if not {"of", "split", "detector", "detections"} <= data.keys():
        raise InputError(f"{path}: not detections; expected the keys of, split, detector, detections")
    if data["split"] != training_hash or data["of"] != {"split": training_hash}:
        raise InputError(
            f"{path}: detections of another training split than that of this data set; detect again"
        )
    return data


def about(detector: AskedDetector | None, settings: AttributeSettings, training_hash: str) -> dict:
    """All that attributes depend on beside the detector's own weights, JSON-serialisable."""
    asked = detector and {"detector": detector.detector, "seed": detector.seed}
    return {"asked": asked, "settings": settings.model_dump(mode="json"), "split": training_hash}


def write_attributes(folder: Path, found: dict[int, str], facts: dict) -> None:
    """Write <folder>/attributes.json."""
    folder.mkdir(exist_ok=True)
    write_json(folder / FILE, facts | {"attributes": {str(key): value for key, value in found.items()}})


def load_attributes(
    folder: Path, detector: AskedDetector | None, settings: AttributeSettings, *, training_hash: str
) -> dict[int, str]:
    """By annotation id; empty where no detector is asked.

    Raises:
        InputError: malformed, or made with another detector, other thresholds, or of another split.
    """
    path = folder / FILE
    data = read_json(path, "attributes of objects")
    wanted = about(detector, settings, training_hash)
    if not {*wanted, "attributes"} <= data.keys():
        raise InputError(f"{path}: not attributes of objects; make them again")
    names = {"asked": "another detector", "settings": "other thresholds", "split": "another training split"}
    for key, what in names.items():
        if data[key] != wanted[key]:
            raise InputError(
                f"{path}: attributes by {what}: {data[key]}; expected {wanted[key]}; make them again"
            )
    return {int(key): value for key, value in data["attributes"].items()}
