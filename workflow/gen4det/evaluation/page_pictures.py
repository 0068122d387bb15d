"""Pictures of generated sets inside a page of HTML: the image itself, and its boxes as shapes over it."""

import base64
import io
from collections import defaultdict

from PIL import Image

from gen4det.data.images import image_name
from gen4det.data.masks import rle_to_polygons, segmentation_to_rle
from gen4det.evaluation.filter_page import choose_images
from gen4det.evaluation.gallery import GeneratedSet, in_words, size_of

LARGEST = 384
"""Pixels of the longer side; larger images are made smaller."""
QUALITY = 85


def pictures_of(generated: GeneratedSet, count: int, seed: int = 0) -> list[dict]:
    """Some images of a set, half of them with rejected labels, one for each reason in turn.

    Returns:
        Of each image "source" (a data URL), "width" and "height" in pixels of the labels, "boxes" with
        "kept", "x", "y", "w", "h", "name", "why" (empty: kept) and "outline" (the path of the mask in SVG;
        empty: none), and "rejected", a line of text for each reason.
    """
    return [_picture(generated, image_id) for image_id in choose_images(generated, count, seed)]


def _picture(generated: GeneratedSet, image_id: int) -> dict:
    store, record = generated.images[image_id]
    height, width = size_of(generated, image_id)
    kept = generated.kept.get(image_id, [])
    rejected = generated.rejected.get(image_id, [])
    by_reason: dict[str, list[str]] = defaultdict(list)
    for label in rejected:
        by_reason[in_words(label["reason"])].append(generated.names[label["category_id"]])
    return {
        "source": data_url(store.image(image_name(record))),
        "width": width,
        "height": height,
        "boxes": [_box(generated, label, (height, width)) for label in [*kept, *rejected]],
        "kept": [generated.names[label["category_id"]] for label in kept],
        "rejected": [f"{reason}: {', '.join(names)}" for reason, names in by_reason.items()],
    }


def _box(generated: GeneratedSet, label: dict, size: tuple[int, int]) -> dict:
    x, y, w, h = label["bbox"]
    return {
        "kept": "reason" not in label,
        "real": bool(label.get("real")),
        "x": round(x, 1),
        "y": round(y, 1),
        "w": round(w, 1),
        "h": round(h, 1),
        "name": generated.names[label["category_id"]],
        "why": in_words(label.get("reason", "")),
        "outline": _outline(label.get("segmentation"), size),
    }


def _outline(segmentation: list | dict | None, size: tuple[int, int]) -> str:
    if not segmentation:
        return ""
    polygons = rle_to_polygons(segmentation_to_rle(segmentation, *size))
    return "".join(f"M{' '.join(f'{value:g}' for value in polygon)}Z" for polygon in polygons)


def data_url(image) -> str:
    """An image, uint8 (H, W, 3) RGB, as a JPEG inside a URL, at most `LARGEST` pixels long."""
    picture = Image.fromarray(image)
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY, subsampling=0)
    return in_url("image/jpeg", content.getvalue())


def in_url(kind: str, content: bytes) -> str:
    """Bytes of a media type inside a URL, so that a page needs no file beside it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
