"""Training images of several sources."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_detector import CATEGORIES, SIZE, tiny_dataset, tiny_synthetic

from gen4det.core.errors import InputError
from gen4det.data.images import ImageStore, encode_image
from gen4det.data.label_sets import LabelSet
from gen4det.data.shards import open_synthetic
from gen4det.detection.datasets import DetectionDataset, Source
from gen4det.detection.samplers import Draw
from gen4det.detection.settings import Completeness

PIPELINE = [
    dict(type="LoadStoredImage"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs", meta_keys=("img_id", "source", "flip")),
]


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Source:
    dataset = tiny_dataset(tmp_path_factory.mktemp("real"), [[3], [], [7, 20], [3, 3]])
    return Source("tiny", dataset.train.annotations_path, dataset.train.labels(), dataset.train.images)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Source:
    path = tiny_synthetic(tmp_path_factory.mktemp("mosaicfusion"), [[20], [20, 7]])
    labels, images = open_synthetic(path)
    return Source("mosaicfusion", path, labels, images, synthetic=True)


def changed(source: Source, change) -> Source:
    annotations = source.labels.tables[0].as_coco()
    change(annotations)
    labels = LabelSet.of(annotations, source.path)
    return Source(source.name, source.path, labels, source.images, source.synthetic)


def test_sources_stand_one_behind_the_other_and_tag_their_images(real, synthetic):
    data = DetectionDataset([real, synthetic], CATEGORIES, PIPELINE, masks=True, keep_empty=True)
    assert len(data) == 6
    samples = [data[Draw(index, 0)]["data_samples"] for index in range(6)]
    assert [sample.source for sample in samples] == ["tiny"] * 4 + ["mosaicfusion"] * 2
    assert data.origin.tolist() == [0, 0, 0, 0, 1, 1]


def test_category_ids_with_gaps_become_dense_labels_in_order_of_id(real):
    data = DetectionDataset([real], CATEGORIES, PIPELINE, masks=True)
    assert data.metainfo["classes"] == ("square", "disc", "ring")  # ids 3, 7, 20
    assert list(data.contents) == [[0], [1, 2], [0]]
    assert data[Draw(1, 0)]["data_samples"].gt_instances.labels.tolist() == [1, 2]


def test_images_without_objects_are_kept_only_on_request(real):
    assert len(DetectionDataset([real], CATEGORIES, PIPELINE)) == 3
    data = DetectionDataset([real], CATEGORIES, PIPELINE, masks=True, keep_empty=True)
    assert data.contents[1] == []
    sample = data[Draw(1, 0)]["data_samples"]
    assert len(sample.gt_instances.bboxes) == 0 and len(sample.gt_instances.masks) == 0


def test_pixels_and_masks_come_out_of_the_zip_as_they_went_in(real):
    data = DetectionDataset([real], CATEGORIES, PIPELINE, masks=True)
    index, seed = next((0, seed) for seed in range(20) if not data[Draw(0, seed)]["data_samples"].flip)
    item = data[Draw(index, seed)]
    image = real.images.image("000001.png")
    np.testing.assert_array_equal(item["inputs"].numpy(), image[..., ::-1].transpose(2, 0, 1))  # BGR
    mask = item["data_samples"].gt_instances.masks.masks[0].astype(bool)
    assert (image[mask] == (220, 40, 40)).all()


def test_an_item_depends_on_its_seed_alone(real):
    data = DetectionDataset([real], CATEGORIES, PIPELINE, masks=True)

    def flips(seeds):
        return {seed: data[Draw(0, seed)]["data_samples"].flip for seed in seeds}

    forwards = flips(range(20))
    random.seed(), np.random.seed(), torch.seed()
    assert flips(reversed(range(20))) == forwards
    assert len(set(forwards.values())) == 2


def test_crowds_are_regions_to_ignore(real):
    def make_crowd(annotations):
        annotations["annotations"][0]["iscrowd"] = 1

    data = DetectionDataset([changed(real, make_crowd)], CATEGORIES, PIPELINE, masks=True)
    sample = data[Draw(0, 0)]["data_samples"]
    assert len(sample.gt_instances) == 0 and len(sample.ignored_instances) == 1
    assert data.contents[0] == []


def test_polygons_are_masks_too(real):
    def to_polygon(annotations):
        annotations["annotations"][0]["segmentation"] = [[8.0, 8.0, 24.0, 8.0, 24.0, 24.0, 8.0, 24.0]]

    data = DetectionDataset([changed(real, to_polygon)], CATEGORIES, PIPELINE, masks=True)
    assert data[Draw(0, 0)]["data_samples"].gt_instances.masks.masks[0].sum() == 256


def test_an_object_without_mask_is_refused_where_masks_are_learned(real):
    def drop(annotations):
        del annotations["annotations"][0]["segmentation"]

    source = changed(real, drop)
    assert len(DetectionDataset([source], CATEGORIES, PIPELINE)) == 3
    with pytest.raises(InputError, match=r"train\.json: annotation 1 has no segmentation"):
        DetectionDataset([source], CATEGORIES, PIPELINE, masks=True)


def test_a_synthetic_set_may_have_boxes_alone(real, synthetic):
    def drop(annotations):
        for annotation in annotations["annotations"]:
            annotation.pop("segmentation")

    data = DetectionDataset([real, changed(synthetic, drop)], CATEGORIES, PIPELINE, masks=True)
    assert data.masked.tolist() == [True] * 3 + [False] * 2
    assert data.synthetic.tolist() == [False] * 3 + [True] * 2
    labels = [data[Draw(index, 0)]["data_samples"].gt_instances for index in (0, 3)]
    assert [found.masked for found in labels] == [True, False]
    assert len(labels[1].masks) == len(labels[1]) > 0


def test_a_synthetic_set_that_has_some_masks_must_have_all(real, synthetic):
    def drop(annotations):
        annotations["annotations"][0].pop("segmentation")

    with pytest.raises(InputError, match=r"annotations\.json: annotation 1 has no segmentation"):
        DetectionDataset([real, changed(synthetic, drop)], CATEGORIES, PIPELINE, masks=True)


def test_what_replaces_an_emptied_image_is_of_its_kind(real, synthetic):
    crop = dict(type="RandomCrop", crop_size=(12, 12))
    pipeline = [*PIPELINE[:2], crop, PIPELINE[-1]]
    synthetic = replace(synthetic, completeness=Completeness(background="ignore"))
    data = DetectionDataset([real, synthetic], CATEGORIES, pipeline, masks=True)
    drawn = [(index, data[Draw(index, seed)]["data_samples"]) for index in (0, 3) for seed in range(12)]
    kinds = {(index, sample.gt_instances.ignore_background) for index, sample in drawn}
    assert kinds == {(0, False), (3, True)}
    assert len({sample.img_id for index, sample in drawn if index == 0}) > 1  # some were replaced


@pytest.mark.parametrize("name, problem", [("hoop", "is 'ring' there"), ("ring", None)])
def test_a_synthetic_category_of_another_name_is_refused(real, synthetic, name, problem):
    def rename(annotations):
        annotations["categories"] = [{"id": 20, "name": name}]

    sources = [real, changed(synthetic, rename)]
    if problem is None:
        assert len(DetectionDataset(sources, CATEGORIES, PIPELINE)) == 5
    else:
        with pytest.raises(InputError, match=problem):
            DetectionDataset(sources, CATEGORIES, PIPELINE)


def test_no_objects_at_all_is_refused(real):
    def empty(annotations):
        annotations["annotations"] = []

    with pytest.raises(InputError, match="no image with an object"):
        DetectionDataset([changed(real, empty)], CATEGORIES, PIPELINE)


def test_an_image_of_another_size_is_refused(real, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    small = encode_image(np.zeros((SIZE // 2, SIZE, 3), np.uint8), "png")
    for record in real.labels.tables[0].as_coco()["images"]:
        (folder / record["file_name"]).write_bytes(small)
    source = Source("tiny", real.path, real.labels, ImageStore(folder))
    data = DetectionDataset([source], CATEGORIES, PIPELINE, masks=True)
    with pytest.raises(InputError, match=r"000001\.png: 64 x 32 pixels; annotated as 64 x 64"):
        data[Draw(0, 0)]


def test_an_image_that_augmentation_empties_is_replaced_the_same_way_every_time(real):
    crop = dict(type="RandomCrop", crop_size=(12, 12))  # None where no object is left
    data = DetectionDataset([real], CATEGORIES, [*PIPELINE[:2], crop, PIPELINE[-1]], masks=True)
    first = [data[Draw(0, seed)]["inputs"] for seed in range(8)]
    second = [data[Draw(0, seed)]["inputs"] for seed in range(8)]
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_workers_load_the_same_items(real, synthetic):
    data = DetectionDataset([real, synthetic], CATEGORIES, PIPELINE, masks=True)
    draws = [[Draw(index % 5, index)] for index in range(12)]

    def load(workers):
        loader = torch.utils.data.DataLoader(data, batch_sampler=draws, collate_fn=list, num_workers=workers)
        return [item["inputs"] for batch in loader for item in batch]

    assert all(torch.equal(*pair) for pair in zip(load(0), load(2), strict=True))
