"""Subsets of the training images: nested, deterministic, and all that later stages see."""

import json
import subprocess
import sys

import pytest
from tiny_detector import tiny_dataset

from gen4det.core.errors import InputError
from gen4det.data.annotations import category_counts
from gen4det.data.datasets import load_dataset
from gen4det.data.source_settings import SubsetDataset
from gen4det.data.subsets import restrict, write_subset
from gen4det.engines.gen2det.plan import plan_manifest
from gen4det.engines.gen2det.settings import Settings

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)


def annotations(images: int) -> dict:
    return {
        "images": [{"id": 3 * number, "file_name": f"{number}.png"} for number in range(images)],
        "annotations": [
            {"id": number, "image_id": 3 * (number // 2), "category_id": 1 + number % 2}
            for number in range(2 * images)
        ],
        "categories": [{"id": k, "name": f"kind {k}", "image_count": 99} for k in (1, 2, 5)],
    }


def ids(data: dict) -> list[int]:
    return [image["id"] for image in data["images"]]


def test_subsets_are_nested_and_have_their_share():
    data = annotations(1000)
    chosen = [ids(restrict(data, share, seed=0)) for share in SHARES]
    assert [len(images) for images in chosen] == [10, 20, 50, 100, 200, 300, 400, 500, 1000]
    for smaller, larger in zip(chosen, chosen[1:], strict=False):
        assert set(smaller) < set(larger)
    assert chosen[-1] == ids(data)  # in the order of the file


def test_the_choice_depends_on_the_seed_and_on_nothing_else():
    data = annotations(200)
    backwards = data | {"images": data["images"][::-1]}
    assert set(ids(restrict(data, 0.1, 4))) == set(ids(restrict(backwards, 0.1, 4)))
    assert set(ids(restrict(data, 0.1, 4))) != set(ids(restrict(data, 0.1, 5)))


def test_labels_follow_their_images_and_counts_are_those_of_the_subset():
    part = restrict(annotations(40), 0.25, seed=1)
    assert {label["image_id"] for label in part["annotations"]} == set(ids(part))
    assert len(part["annotations"]) == 20
    assert [(c["image_count"], c["instance_count"]) for c in part["categories"]] == [
        (10, 10),
        (10, 10),
        (0, 0),
    ]
    assert category_counts(part)[1] == (10, 10)


def test_a_subset_has_one_image_at_least():
    assert len(restrict(annotations(40), 0.001, seed=1)["images"]) == 1


@pytest.fixture(scope="module")
def subset(tmp_path_factory):
    """A quarter of the tiny data set, made by the stage."""
    folder = tmp_path_factory.mktemp("data")
    tiny_dataset(folder / "whole")
    settings = SubsetDataset(source="subset", of="whole", share=0.25)
    command = [sys.executable, "-m", "gen4det.stages.subset", "--settings", settings.model_dump_json()]
    paths = ["--whole", str(folder / "whole/dataset.json"), "--output", str(folder / "part/dataset.json")]
    subprocess.run([*command, *paths], check=True, capture_output=True)
    return folder / "part" / "dataset.json"


def test_a_subset_is_a_data_set_over_the_same_files(subset):
    part, whole = load_dataset(subset), load_dataset(subset.parents[1] / "whole" / "dataset.json")
    assert (part.name, part.format) == ("part", whole.format)
    assert len(part.train.load()["images"]) == 6 and part.train.hash != whole.train.hash
    assert part.val.hash == whole.val.hash
    assert part.declared == part.train.load()["categories"]
    name = part.train.load()["images"][0]["file_name"]
    assert (part.train.images.image(name) == whole.train.images.image(name)).all()
    record = json.loads((subset.parent / "dataset.json.record.json").read_text())
    assert (record["images"], record["images_of_the_whole"]) == (6, 24)


def test_the_same_settings_write_the_same_bytes(subset, tmp_path):
    settings = SubsetDataset(source="subset", of="whole", share=0.25)
    write_subset("part", settings, subset.parents[1] / "whole" / "dataset.json", tmp_path / "dataset.json")
    assert (tmp_path / "train.json").read_bytes() == (subset.parent / "train.json").read_bytes()


def test_what_is_drawn_from_a_subset_may_be_trained_on_and_a_leak_may_not(subset):
    """Every reference of an engine's plan is an image of the subset; the training refuses any other."""
    from gen4det.detection.training import load_sources

    part, whole = load_dataset(subset), load_dataset(subset.parents[1] / "whole" / "dataset.json")
    known = set(ids(part.train.load()))

    def references(dataset):
        rows = plan_manifest(dataset.train.load(), Settings(), run_seed=0, cell=8)
        return {row["reference_image_id"] for row in rows}

    assert references(part) == known
    drawn = synthetic_set(subset.parent / "clean", sorted(references(part)), part.train.hash)
    assert len(load_sources(part, [drawn])[0]) == 2
    leak = synthetic_set(subset.parent / "leak", sorted(references(whole)), whole.train.hash)
    with pytest.raises(InputError, match=r"drawn from other training images than .*part/train\.json"):
        load_sources(part, [leak])


def synthetic_set(folder, references: list[int], split: str):
    """A synthetic set whose images name what they were drawn after, of a split of this hash."""
    from tiny_detector import tiny_synthetic

    path = tiny_synthetic(folder, [[20]] * len(references))
    data = json.loads(path.read_text())
    for image, reference in zip(data["images"], references, strict=True):
        image["reference_image_id"] = reference
    data["info"]["split"] = split
    path.write_text(json.dumps(data))
    return path


# --- labels of base categories alone ------------------------------------------------------------------


def base_subset(tmp_path, **settings) -> dict:
    whole = tiny_dataset(tmp_path)
    (tmp_path / "base").mkdir()
    write_subset(
        "tiny-base",
        SubsetDataset(source="subset", of="tiny", **settings),
        whole.path,
        tmp_path / "base/dataset.json",
    )
    return load_dataset(tmp_path / "base/dataset.json")


def test_no_label_of_a_novel_category_is_left_in_training(tmp_path):
    split = tmp_path / "split.yaml"
    split.write_text("base: {Square: 1}\nnovel: {ring: 2}\n")
    subset = base_subset(tmp_path, labels="base", split=str(split))
    training = subset.train.load()
    assert {label["category_id"] for label in training["annotations"]} == {3}
    assert len(training["images"]) == 24 and len(training["categories"]) == 3
    assert {it["name"]: it["split"] for it in subset.categories} == {
        "square": "base",
        "disc": None,
        "ring": "novel",
    }
    assert {label["category_id"] for label in subset.val.load()["annotations"]} == {3, 7, 20}


def test_rare_categories_may_be_the_novel_ones(tmp_path):
    subset = base_subset(tmp_path, labels="not-rare")
    assert {label["category_id"] for label in subset.train.load()["annotations"]} == {3, 7}
    assert {it["name"]: it["split"] for it in subset.categories}["ring"] == "novel"


def test_a_split_that_nobody_names_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"train\.json: no category is base; name a file of them in split"):
        base_subset(tmp_path, labels="base")
    with pytest.raises(ValueError, match="split: has a meaning with labels: base alone"):
        SubsetDataset(source="subset", of="tiny", split="x.yaml")
