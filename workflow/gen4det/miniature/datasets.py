"""Detection data sets of the miniature world: an LVIS edition and a COCO edition.

The LVIS edition is long-tailed and federated as LVIS v1 is (Gupta et al. 2019, sec. 3): only some absent
categories of an image are verified (`neg_category_ids`), some present ones are annotated incompletely
(`not_exhaustive_category_ids`), some not at all. The COCO edition is exhaustive, marks base and novel
categories and has captions. Every image is a function of (seed, edition, split, index).
"""

from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gen4det.core.provenance import seed_for
from gen4det.data.annotations import category_counts, write_annotations
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, write_dataset, write_split
from gen4det.data.images import ImageStore, ShardWriter, encode_image
from gen4det.data.masks import mask_to_rle
from gen4det.data.validation import validate_annotations
from gen4det.miniature.categories import CATEGORIES, Category
from gen4det.miniature.renderer import Scene, render_scene
from gen4det.miniature.settings import MiniatureDataset

FULL_TRAIN_IMAGES = 600  # the number of images the categories' `train_images` refer to
OBJECTS_PER_IMAGE = np.array([0.08, 0.2, 0.27, 0.27, 0.18])  # probabilities of 1 to 5 objects
VERIFIED_ABSENT = 10  # negative categories per image; LVIS verifies a few of its 1203
INCOMPLETE_SHARE = 0.3  # of the categories with several instances in an image
UNVERIFIED_SHARE = 0.04  # of the present frequent categories
RENDER_ATTEMPTS = 25


def render_dataset(settings: MiniatureDataset, name: str, output: Path) -> None:
    """Render both splits beside `output`, the descriptor `dataset.json`.

    Writes `{train,val}.zip` (PNG), `{train,val}.json` and, for the COCO edition,
    `captions_{train,val}.json`.
    """
    folder = output.parent
    rng = np.random.default_rng(seed_for(settings.seed, settings.edition, "layout"))
    layouts = {
        "train": _long_tailed_layout(rng, settings.train_images),
        "val": _balanced_layout(rng, settings.val_images),
    }
    registered = {}
    for split, layout in layouts.items():
        annotations, captions = _render_split(settings, split, layout, folder / f"{split}.zip")
        if split == "train":
            counts, categories = category_counts(annotations), annotations["categories"]
        for category in annotations["categories"]:
            category["image_count"], category["instance_count"] = counts[category["id"]]
        validate_annotations(
            annotations, source=f"rendered {split}", images=ImageStore(folder / f"{split}.zip"),
            allow_empty_categories=split == "val",
        )  # fmt: skip
        registered[split] = write_split(folder, split, annotations)
        if settings.edition == "coco":
            write_annotations(folder / f"captions_{split}.json", captions)
    splits = {
        s: SplitDescriptor(
            **registered[s],
            images=f"{s}.zip",
            captions=f"captions_{s}.json" if settings.edition == "coco" else None,
        )
        for s in layouts
    }
    write_dataset(
        output, DatasetDescriptor(name=name, format=settings.edition, categories=categories, **splits)
    )


# --- which objects stand in which image ---------------------------------------------------------


def _long_tailed_layout(rng: np.random.Generator, images: int) -> list[list[Category]]:
    """Every category in exactly its number of images (scaled to `images`), one to five objects each."""
    capacity = rng.choice(5, images, p=OBJECTS_PER_IMAGE) + 1
    layout: list[list[Category]] = [[] for _ in range(images)]
    for category in sorted(CATEGORIES, key=lambda c: -c.train_images):
        count = max(1, round(category.train_images * images / FULL_TRAIN_IMAGES))
        room = np.maximum(capacity - [len(picked) for picked in layout], 0) + 1e-6
        for index in rng.choice(images, min(count, images), replace=False, p=room / room.sum()):
            layout[index].append(category)
    for index, picked in enumerate(layout):
        if not picked:
            picked.append(CATEGORIES[rng.integers(8)])
        repeatable = [category for category in picked if category.frequency == "f"]
        while repeatable and len(picked) < capacity[index]:
            picked.append(repeatable[rng.integers(len(repeatable))])
        rng.shuffle(picked)
    return layout


def _balanced_layout(rng: np.random.Generator, images: int) -> list[list[Category]]:
    """All categories equally likely, so that the AP of a rare one is measured on enough instances."""
    counts = rng.choice(5, images, p=OBJECTS_PER_IMAGE) + 1
    order = np.concatenate(
        [rng.permutation(len(CATEGORIES)) for _ in range(counts.sum() // len(CATEGORIES) + 1)]
    )
    layout = [[CATEGORIES[i] for i in part] for part in np.split(order, np.cumsum(counts))[:images]]
    for picked in layout:  # sometimes two of a kind
        if len(picked) > 1 and rng.random() < 0.3:
            picked[-1] = picked[0]
    return layout


# --- drawing and annotating ---------------------------------------------------------------------


def _render_split(
    settings: MiniatureDataset, split: str, layout: list[list[Category]], images_path: Path
) -> tuple[dict, dict]:
    images, annotations, captions = [], [], []
    with ShardWriter(images_path) as shard:
        for index, picked in enumerate(tqdm(layout, desc=f"render {split}", unit="image", mininterval=2)):
            image_id = index + 1
            scene = _complete_scene(settings, split, index, picked)
            record = {
                "id": image_id, "file_name": f"{image_id:012d}.png",
                "width": settings.image_size, "height": settings.image_size,
            }  # fmt: skip
            shard.add(record["file_name"], encode_image(scene.image, "png"))
            kept = scene.objects
            if settings.edition == "lvis":
                rng = np.random.default_rng(seed_for(settings.seed, "lvis", split, "verification", index))
                kept, negative, incomplete = _federate(rng, scene)
                record |= {"neg_category_ids": negative, "not_exhaustive_category_ids": incomplete}
            images.append(record)
            names = [placed.category.name for placed in scene.objects]
            caption = _caption(names, settings.style)
            captions.append({"id": image_id, "image_id": image_id, "caption": caption})
            for placed in kept:
                annotation = {
                    "id": len(annotations) + 1, "image_id": image_id, "category_id": placed.category.id,
                    "bbox": [float(v) for v in placed.box], "area": float(placed.mask.sum()),
                    "segmentation": mask_to_rle(placed.mask),
                }  # fmt: skip
                annotations.append(annotation | ({"iscrowd": 0} if settings.edition == "coco" else {}))
    info = {"description": f"Gen4Det miniature, {settings.edition} edition, {split}"}
    records = {
        "info": info, "images": images, "annotations": annotations,
        "categories": [_category_record(category, settings.edition) for category in CATEGORIES],
    }  # fmt: skip
    return records, {"info": info, "images": images, "annotations": captions}


def _complete_scene(settings: MiniatureDataset, split: str, index: int, picked: list[Category]) -> Scene:
    """The first of some attempts that finds room for all objects, else the last one."""
    for attempt in range(RENDER_ATTEMPTS):
        seed = seed_for(settings.seed, settings.edition, split, index, attempt)
        scene = render_scene(seed, picked, settings.image_size, settings.object_size, settings.style)
        if len(scene.objects) == len(picked):
            break
    return scene


def _federate(rng: np.random.Generator, scene: Scene) -> tuple[list, list[int], list[int]]:
    """Annotations that LVIS's protocol would have: (kept objects, negative ids, incomplete ids)."""
    count = Counter(placed.category.id for placed in scene.objects)
    groups = {placed.category.id: placed.category.frequency for placed in scene.objects}
    unverified = {c for c in count if groups[c] == "f" and rng.random() < UNVERIFIED_SHARE and len(count) > 1}
    incomplete = {
        c for c, n in count.items() if n > 1 and c not in unverified and rng.random() < INCOMPLETE_SHARE
    }
    kept, dropped = [], set()
    for placed in scene.objects:
        category = placed.category.id
        if category in incomplete and category not in dropped:
            dropped.add(category)
        elif category not in unverified:
            kept.append(placed)
    absent = [category.id for category in CATEGORIES if category.id not in count]
    negative = sorted(int(c) for c in rng.choice(absent, min(VERIFIED_ABSENT, len(absent)), replace=False))
    return kept, negative, sorted(incomplete)


def _category_record(category: Category, edition: str) -> dict:
    record = {"id": category.id, "name": category.name}
    if edition == "coco":
        return record | {"supercategory": "object", "split": "novel" if category.novel else "base"}
    return record | {
        "frequency": category.frequency, "def": category.definition, "synonyms": [category.name],
        "synset": f"{category.name}.n.01",
    }  # fmt: skip


def _caption(names: list[str], style: str) -> str:
    words = [f"a {name}" for name in dict.fromkeys(names)]
    return f"a {style} of " + (
        " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
    )
