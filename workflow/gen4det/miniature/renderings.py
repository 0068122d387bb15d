"""Renderings for the judge of canvases: a data set that its detector learns from, and single objects.

All seeds are streams of the judge's own: no picture of a detection split or of the corpus is among them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from gen4det.core.provenance import seed_for
from gen4det.data.annotations import write_annotations
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, write_dataset
from gen4det.data.images import ShardWriter, encode_image
from gen4det.data.masks import mask_to_rle
from gen4det.miniature.canvas_judge_settings import CanvasJudge
from gen4det.miniature.canvases import random_regions, render_canvas
from gen4det.miniature.categories import CATEGORIES, Category
from gen4det.miniature.renderer import PORTRAIT, Placed, Scene, render_scene

OBJECTS = 5  # of an ordinary scene, at most
SINGLE_SIZE = (
    0.6,
    0.88,
)  # extent of the object of a picture of one, as a share of its side, as in the corpus
VAL_SHARE = 0.1
CALLED = [{"id": category.id, "name": category.name} for category in CATEGORIES]


def render_for_judge(settings: CanvasJudge, output: Path) -> None:
    """Write a data set in COCO's format: `output`, the descriptor dataset.json, with what it names beside it.

    Its training split holds canvases and ordinary scenes; its validation split as many of each as a tenth of
    them, for a look at the detector itself.
    """
    for split, share in (("train", 1.0), ("val", VAL_SHARE)):
        scenes = _renderings(settings, split, share)
        write_scenes(scenes, output.parent / f"{split}.zip", output.parent / f"{split}.json")
    splits = {
        split: SplitDescriptor(annotations=f"{split}.json", images=f"{split}.zip")
        for split in ("train", "val")
    }
    write_dataset(output, DatasetDescriptor(name="judge", format="coco", categories=CALLED, **splits))


def _renderings(settings: CanvasJudge, split: str, share: float) -> Iterator[Scene]:
    side = settings.image_size
    for index in range(max(1, round(settings.canvases * share))):
        seed = seed_for(settings.seed, split, "canvas", index)
        yield render_canvas(random_regions(seed, side), side, side, seed)
    for index in range(max(1, round(settings.scenes * share))):
        yield ordinary_scene(settings, split, index)


def ordinary_scene(settings: CanvasJudge, stream: str, index: int, first: Category | None = None) -> Scene:
    """One to five objects of any category, as in the detection set; they may hide each other in part.

    Args:
        first: category of one of the objects; None: any.
    """
    rng = np.random.default_rng(seed_for(settings.seed, stream, "scene", index))
    picks = [CATEGORIES[i] for i in rng.integers(len(CATEGORIES), size=rng.integers(1, OBJECTS + 1))]
    picks = picks if first is None else [*picks[1:], first]  # painted last, so that nothing hides it
    return render_scene(int(rng.integers(2**62)), picks, settings.image_size, settings.object_size)


def write_scenes(scenes: Iterator[Scene], archive: Path, annotations: Path) -> None:
    """Images as PNG in a zip, labels as a COCO file beside it."""
    images, labels = [], []
    with ShardWriter(archive) as shard:
        for index, scene in enumerate(
            tqdm(scenes, desc=f"render {annotations.stem}", unit="image", mininterval=5)
        ):
            height, width = scene.image.shape[:2]
            name = f"{index:06d}.png"
            shard.add(name, encode_image(scene.image, "png"))
            images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
            labels += [
                label_of(placed) | {"id": len(labels) + number, "image_id": index + 1}
                for number, placed in enumerate(scene.objects, start=1)
            ]
    write_annotations(annotations, {"images": images, "annotations": labels, "categories": CALLED})


def label_of(placed: Placed) -> dict:
    """A rendered object as a COCO record without ids of image and annotation."""
    return {
        "category_id": placed.category.id,
        "bbox": [float(side) for side in placed.box],
        "area": float(placed.mask.sum()),
        "segmentation": mask_to_rle(placed.mask),
        "iscrowd": 0,
    }


def render_singles(settings: CanvasJudge, category: Category, side: int) -> np.ndarray:
    """Pictures of one object as in the corpus, uint8 (samples, side, side, 3)."""
    return np.stack(
        [
            render_scene(
                seed_for(settings.seed, "single", category.name, index),
                [category], side, tuple(share * side for share in SINGLE_SIZE), variation=PORTRAIT,
            ).image
            for index in range(settings.samples)
        ]
    )  # fmt: skip


def at_detection_size(settings: CanvasJudge, image: np.ndarray, seed: int) -> tuple[np.ndarray, list[float]]:
    """A picture of one object shrunk or enlarged until the object has a size of the detection set.

    Put on an image of the detection set's size, whose rest continues the picture's borders.

    Args:
        image: uint8 (S, S, 3), S at most the size of the images.

    Returns:
        uint8 (size, size, 3), and where the picture lies on it, [x, y, width, height] in pixels.
    """
    rng = np.random.default_rng(seed)
    extent = np.exp(rng.uniform(*np.log(settings.object_size)))
    expected = float(np.mean(SINGLE_SIZE)) * image.shape[0]
    side = min(max(1, round(image.shape[0] * extent / expected)), settings.image_size)
    small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    room = settings.image_size - side
    x, y = (int(start) for start in rng.integers(room + 1, size=2))
    whole = np.pad(small, ((y, room - y), (x, room - x), (0, 0)), mode="edge")
    return whole, [float(x), float(y), float(side), float(side)]
