"""Layouts of real images: which objects of which images a generator learns from and draws. No torch."""

from dataclasses import dataclass, replace

import numpy as np

from gen4det.core.errors import InputError
from gen4det.data.annotations import index_annotations, is_object
from gen4det.data.images import image_name
from gen4det.diffusion.words import squeeze
from gen4det.engines.detdiffusion.settings import LayoutSettings


@dataclass(frozen=True)
class LayoutObject:
    """One object of a layout."""

    category_id: int
    name: str
    """Its category as words."""
    box: tuple[float, float, float, float]
    """[x, y, width, height] in pixels of the real image."""
    attribute: str | None = None
    """"easy" or "hard"; None: the prompt says nothing."""
    segmentation: object = None
    """Its mask, as the annotation has it; None: it has none."""


@dataclass(frozen=True)
class Layout:
    """The objects of one real image."""

    image_id: int
    file_name: str
    height: int
    width: int
    """Of the real image, in pixels."""
    objects: tuple[LayoutObject, ...]


def class_text(category: dict) -> str:
    """A category as words: hyphens and underscores become spaces (GeoDiffusion's code replaces the
    former)."""
    return squeeze(category["name"].replace("-", " ").replace("_", " ")).strip()


def read_layouts(
    annotations: dict, settings: LayoutSettings, attributes: dict[int, str] | None = None
) -> list[Layout]:
    """Layouts of all images that pass the filter, in the order of the file.

    Boxes are cut at the border of the image first. Objects count if they are neither crowds nor of an
    excluded category and cover more than `least_area`; images, if they have `min_objects` to `max_objects`
    of them.

    Args:
        annotations: COCO or LVIS dictionary.
        attributes: by annotation id; see `attributes.load_attributes`.

    Raises:
        InputError: no image is left.
    """
    categories = {category["id"]: category for category in annotations["categories"]}
    attributes, layouts = attributes or {}, []
    for image, members in zip(annotations["images"], index_annotations(annotations).values(), strict=True):
        height, width = image["height"], image["width"]
        objects = []
        for label in members:
            category = categories[label["category_id"]]
            if not is_object(label) or category["name"] in settings.excluded:
                continue
            box = cut(label["bbox"], height, width)
            if box[2] * box[3] / (height * width) > settings.least_area:
                attribute = attributes.get(label["id"])
                mask = label.get("segmentation") or None
                objects.append(LayoutObject(category["id"], class_text(category), box, attribute, mask))
        if settings.min_objects <= len(objects) <= settings.max_objects:
            layouts.append(Layout(image["id"], image_name(image), height, width, tuple(objects)))
    if not layouts:
        raise InputError(
            f"layouts: none of {len(annotations['images'])} training images has {settings.min_objects} to "
            f"{settings.max_objects} objects that each cover more than {100 * settings.least_area:g}% of it; "
            "change the engine's `layouts`"
        )
    return layouts


def cut(box: tuple | list, height: int, width: int) -> tuple[float, float, float, float]:
    """The part of a box that lies inside the image; of width or height 0 where none does.

    Raises:
        InputError: a number that is not finite.
    """
    if not np.isfinite(box).all():
        raise InputError(f"box {list(box)}: not finite numbers")
    x, y, w, h = box
    left, right = (min(max(side, 0.0), float(width)) for side in (x, x + w))
    top, bottom = (min(max(side, 0.0), float(height)) for side in (y, y + h))
    return left, top, max(right - left, 0.0), max(bottom - top, 0.0)


def mirror(layout: Layout) -> Layout:
    """The layout of the mirrored image; masks are those of the unmirrored one."""
    objects = []
    for member in layout.objects:
        x, y, w, h = member.box
        objects.append(replace(member, box=(layout.width - x - w, y, w, h)))
    return replace(layout, objects=tuple(objects))


def shift(
    layout: Layout, right: float, down: float, settings: LayoutSettings, least_visible: float
) -> Layout:
    """The layout moved by some pixels, its boxes cut at the border.

    Objects of which less than `least_visible` stays inside, or that then cover too little, are left out.
    Where too few are left, the layout stays where it was.
    """
    area, objects = layout.height * layout.width, []
    for member in layout.objects:
        x, y, w, h = member.box
        box = cut((x + right, y + down, w, h), layout.height, layout.width)
        inside = box[2] * box[3]
        if inside >= least_visible * w * h and inside / area > settings.least_area:
            objects.append(replace(member, box=box))
    return replace(layout, objects=tuple(objects)) if len(objects) >= settings.min_objects else layout
