"""The rendered world: exact masks, LVIS's groups, federated annotation, determinism."""

import json
from collections import Counter

import numpy as np
import pytest
from lvis import LVIS
from pycocotools.coco import COCO

from gen4det.core.provenance import file_hash
from gen4det.data.datasets import load_dataset
from gen4det.data.masks import rle_to_mask
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.corpus import corpus_item
from gen4det.miniature.datasets import _long_tailed_layout, render_dataset
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.renderer import MIN_VISIBLE, render_scene
from gen4det.miniature.settings import MiniatureDataset


@pytest.fixture(scope="module")
def lvis_edition(tmp_path_factory):
    path = tmp_path_factory.mktemp("lvis") / "dataset.json"
    render_dataset(MiniatureDataset(train_images=48, val_images=24), "lvis", path)
    return path


@pytest.fixture(scope="module")
def coco_edition(tmp_path_factory):
    path = tmp_path_factory.mktemp("coco") / "dataset.json"
    render_dataset(MiniatureDataset(edition="coco", train_images=24, val_images=8), "coco", path)
    return path


def test_scene_is_a_function_of_its_seed():
    one, two = (render_scene(7, list(CATEGORIES[:4]), 128, (18, 58)) for _ in range(2))
    assert np.array_equal(one.image, two.image)
    assert not np.array_equal(one.image, render_scene(8, list(CATEGORIES[:4]), 128, (18, 58)).image)


def test_masks_are_disjoint_and_boxes_are_tight():
    for seed in range(30):
        scene = render_scene(seed, [CATEGORIES[(seed + k) % 24] for k in range(5)], 128, (18, 58))
        assert 1 <= len(scene.objects) <= 5
        assert np.sum([placed.mask for placed in scene.objects], axis=0).max() <= 1
        for placed in scene.objects:
            x, y, w, h = placed.box
            rows, columns = np.nonzero(placed.mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x, y, x + w, y + h)


def test_a_mask_covers_what_the_object_changed():
    """Drawing an object changes the pixels of its mask, and hardly any other."""
    for seed, category in enumerate(CATEGORIES):
        scene = render_scene(seed, [category], 64, (30, 50))
        empty = render_scene(seed, [], 64, (30, 50))
        changed = np.abs(scene.image.astype(int) - empty.image).max(2) > 24
        mask = scene.objects[0].mask
        assert (changed & mask).sum() / (changed | mask).sum() > 0.75, category.name


def test_no_object_hides_most_of_another():
    for seed in range(20):
        first = render_scene(seed, [CATEGORIES[0]], 64, (30, 50)).objects[0].mask.sum()
        both = render_scene(seed, list(CATEGORIES[:2]), 64, (30, 50)).objects
        if len(both) == 2:
            assert both[0].mask.sum() >= MIN_VISIBLE * first * 0.99


def test_full_training_layout_keeps_lvis_group_limits():
    layout = _long_tailed_layout(np.random.default_rng(0), 600)
    images = Counter(category.id for picked in layout for category in {c.id: c for c in picked}.values())
    for category in CATEGORIES:
        limits = {"r": (1, 10), "c": (11, 100), "f": (101, 600)}[category.frequency]
        assert limits[0] <= images[category.id] <= limits[1], category.name
    assert sum(category.frequency == "r" for category in CATEGORIES) >= 6
    assert all(1 <= len(picked) <= 5 for picked in layout)


def test_lvis_edition_loads_in_the_official_api_and_is_federated(lvis_edition):
    dataset = load_dataset(lvis_edition)
    for split in (dataset.train, dataset.val):
        api = LVIS(str(split.annotations_path))
        negatives = incomplete = 0
        for image in api.dataset["images"]:
            present = {a["category_id"] for a in api.img_ann_map[image["id"]]}
            assert not present & set(image["neg_category_ids"])
            assert set(image["not_exhaustive_category_ids"]) <= present
            negatives += len(image["neg_category_ids"])
            incomplete += bool(image["not_exhaustive_category_ids"])
        assert 0 < negatives / len(api.dataset["images"]) < len(CATEGORIES) / 2
    assert incomplete
    for annotation in dataset.val.load()["annotations"]:
        mask = rle_to_mask(annotation["segmentation"])
        assert annotation["area"] == mask.sum()


def test_coco_edition_loads_in_the_official_api(coco_edition):
    dataset = load_dataset(coco_edition)
    api = COCO(str(dataset.val.annotations_path))
    assert {c["split"] for c in api.dataset["categories"]} == {"base", "novel"}
    captions = json.loads((coco_edition.parent / "captions_val.json").read_text())["annotations"]
    names = {category["id"]: category["name"] for category in api.dataset["categories"]}
    for caption in captions:
        for annotation in api.imgToAnns[caption["image_id"]]:
            assert f"a {names[annotation['category_id']]}" in caption["caption"]


def test_same_settings_render_the_same_bytes(lvis_edition, tmp_path):
    render_dataset(MiniatureDataset(train_images=48, val_images=24), "lvis", tmp_path / "dataset.json")
    for name in ("train.zip", "val.zip", "train.json", "val.json"):
        assert file_hash(tmp_path / name) == file_hash(lvis_edition.parent / name)


def test_the_descriptor_has_the_categories_of_the_training_split(lvis_edition, coco_edition):
    for edition in (lvis_edition, coco_edition):
        dataset = load_dataset(edition)
        assert dataset.declared == dataset.train.load()["categories"] and "image_count" in dataset.declared[0]


def test_corpus_shows_all_categories_and_names_them():
    settings = FoundationTraining()
    seen = Counter()
    for index in range(400):
        item = corpus_item(settings, index)
        for placed in item.scene.objects:
            assert placed.category.name in item.caption
            seen[placed.category.name] += 1
    assert len(seen) == len(CATEGORIES) and max(seen.values()) < 4 * min(seen.values())


def test_no_corpus_image_is_a_detection_image(lvis_edition):
    """Streams of the world are disjoint: not even a background is shared."""
    dataset = load_dataset(lvis_edition)
    corners = {
        split.images.image(name)[:8, :8].tobytes()
        for split in (dataset.train, dataset.val)
        for name in split.images.names()
    }
    settings = FoundationTraining()
    assert not corners & {corpus_item(settings, i).scene.image[:8, :8].tobytes() for i in range(300)}
