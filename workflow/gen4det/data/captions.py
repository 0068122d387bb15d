"""Captions of images, in COCO's layout: {"annotations": [{"image_id": int, "caption": str}, ...]}."""

from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json


def read_captions(path: str | Path) -> dict[int, list[str]]:
    """Captions by image id, in the order of the file.

    Raises:
        InputError: missing, or not a file of captions.
    """
    data = read_json(Path(path), "a file of captions")
    records = data.get("annotations")
    if not isinstance(records, list):
        raise InputError(f"{path}: no captions: expected a list `annotations`")
    captions: dict[int, list[str]] = {}
    for place, record in enumerate(records):
        image = record.get("image_id") if isinstance(record, dict) else None
        text = record.get("caption") if isinstance(record, dict) else None
        if type(image) is not int or not isinstance(text, str):
            raise InputError(f"{path}: annotations.{place}: expected an image_id and a caption")
        captions.setdefault(image, []).append(text)
    return captions
