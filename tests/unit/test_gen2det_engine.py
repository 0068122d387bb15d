"""The engine from a data set to painted images, with a tiny random GLIGEN. Acceptance checks 1 to 4."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from draw_step import DrawStep
from gen4det.core.errors import InputError
from gen4det.core.yaml_files import merge
from gen4det.data.datasets import load_dataset
from gen4det.data.images import ImageStore
from gen4det.diffusion.latent_boxes import latent_mask
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engines.base import engine_settings
from gen4det.engines.gen2det.compositing import paint_weights, resized
from gen4det.engines.gen2det.draw import Painter, labels, painted_boxes
from gen4det.engines.shard_writer import ShardInProgress
from gen4det.orchestration.variants import load_engines, read_variants

TINY = {
    "size": {"height": 64, "width": 64},
    "generations_per_reference": 2,
    "denoising": {"scheduler": "dpm-solver++", "steps": 2, "guidance": 4.0},
    "batch_size": 2,
    "feather": 2,
}
# (width, height), labels as (category, box, crowd)
SCENES = (
    ((96, 64), [(1, [10.5, 8, 30, 20], 0), (2, [60, 30, 30.25, 30], 0)]),
    ((50, 80), [(3, [5, 5, 20, 20], 0), (1, [0, 0, 50, 80], 1), (3, [30, 60, 3, 3], 0)]),
    ((64, 64), [(2, [0, 0, 64, 64], 0)]),
    ((40, 40), []),
)


def picture(number: int, width: int, height: int) -> np.ndarray:
    coarse = np.random.default_rng(number).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def make_dataset(tmp_path):
    """Writes a data set in which validation images would be painted differently, if they were read."""

    def make(scenes=SCENES, names=("cup", "fish", "christmas_tree"), missing=()):
        folder = tmp_path
        for split, shift in (("train", 0), ("val", 100)):
            images, annotations = [], []
            (folder / split).mkdir(exist_ok=True)
            for i, ((width, height), shown) in enumerate(scenes):
                images.append({"id": 7 + i, "file_name": f"{i}.png", "width": width, "height": height})
                if f"{split}/{i}" not in missing:
                    Image.fromarray(picture(i + shift, width, height)).save(folder / split / f"{i}.png")
                for category, box, crowd in shown if split == "train" else ():
                    record = {"id": len(annotations), "image_id": 7 + i, "category_id": category, "bbox": box}
                    annotations.append({**record, "iscrowd": crowd, "area": box[2] * box[3]})
            categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
            data = {"images": images, "annotations": annotations, "categories": categories}
            (folder / f"{split}.json").write_text(json.dumps(data))
        splits = {
            split: {"annotations": f"{split}.json", "images": split, "images_sha256": "0" * 64}
            for split in ("train", "val")
        }
        (folder / "dataset.json").write_text(json.dumps({"name": "tea", "format": "coco", **splits}))
        return load_dataset(folder / "dataset.json")

    return make


@pytest.fixture(scope="module")
def foundation(tiny_grounded_folder):
    return FoundationSettings(inpainting={"path": str(tiny_grounded_folder)})


def engine_of(foundation, **changes):
    settings = engine_settings("gen2det", merge(TINY, changes), source="test")
    return DrawStep(settings, foundation)


def batches_of(rows):
    return [[row for row in rows if row["batch"] == batch] for batch in range(rows[-1]["batch"] + 1)]


def painted(engine, dataset, rows=None):
    """All results, by reference and number."""
    rows = rows or engine.plan(dataset)
    results = [g for members in engine.synthesize(dataset, batches_of(rows)) for g in members]
    assert [g.row for g in results] == rows
    return {(g.row["reference_image_id"], g.row["number"]): g for g in results}


def weights_of(row, feather, cells=(8, 8)):
    mask = latent_mask(painted_boxes(row), (row["height"], row["width"]), cells)
    return paint_weights(mask, row["height"], row["width"], feather)


def test_check_4_labels_are_carried_over_and_images_keep_their_size(make_dataset, foundation, tmp_path):
    dataset = make_dataset()
    engine = engine_of(foundation)
    results = painted(engine, dataset)
    assert set(results) == {(7 + i, number) for i in range(3) for number in range(2)}
    for (reference, _), generated in results.items():
        (width, height), labels = SCENES[reference - 7]
        assert generated.image.shape == (height, width, 3) and generated.image.dtype == np.uint8
        assert [(i.category_id, i.bbox, int(i.crowd)) for i in generated.instances] == labels
        assert not generated.rejected and generated.keep
        assert all(i.rle is None and i.score is None and not i.untouched for i in generated.instances)
    with ShardInProgress(tmp_path / "shard", {}, 0, 1) as work:
        found = work.save(0, list(results.values()))
    assert all("segmentation" not in a and "real" not in a for a in found["annotations"])
    assert [a["iscrowd"] for a in found["annotations"] if "iscrowd" in a] == [1, 1]
    assert {(image["reference_image_id"], image["number"]) for image in found["images"]} == set(results)


def test_check_3_only_the_training_image_outside_the_boxes(make_dataset, foundation):
    dataset = make_dataset()
    results = painted(engine_of(foundation), dataset)
    for (reference, number), generated in results.items():
        original = dataset.train.images.image(f"{reference - 7}.png")
        other = results[reference, 1 - number]
        weights = weights_of(generated.row, 2)
        kept = weights == 0
        assert kept.any() == (reference != 9)
        np.testing.assert_array_equal(generated.image[kept], original[kept])
        difference = np.abs(generated.image.astype(int) - other.image)
        assert difference[kept].sum() == 0 and difference[weights == 1].mean() > 3
        assert np.abs(generated.image.astype(int) - original)[weights == 1].mean() > 3


def test_without_pasting_the_models_own_pixels_stay(make_dataset, foundation):
    dataset = make_dataset(SCENES[:1])
    engine = engine_of(foundation, paste_back=False, generations_per_reference=1)
    (row,) = engine.plan(dataset)
    (whole,) = painted(engine, dataset).values()
    pasted = painted(engine_of(foundation, generations_per_reference=1), dataset)[7, 0]
    inside = weights_of(row, 2) == 1
    np.testing.assert_array_equal(whole.image[inside], pasted.image[inside])
    kept = weights_of(row, 2) == 0
    assert (whole.image[kept] != pasted.image[kept]).any()


def test_check_3_same_seed_same_bits_whatever_was_drawn_before(make_dataset, foundation):
    dataset = make_dataset()
    engine = engine_of(foundation)
    batches = batches_of(engine.plan(dataset))
    first = list(engine.synthesize(dataset, batches))
    (last,) = engine_of(foundation).synthesize(dataset, batches[-1:])
    again = list(engine.synthesize(dataset, batches[::-1]))[::-1]
    for members, others in zip([*first, first[-1]], [*again, last], strict=True):
        for one, other in zip(members, others, strict=True):
            np.testing.assert_array_equal(one.image, other.image)


def test_an_image_depends_on_its_reference_and_number_only(make_dataset, foundation):
    """Not on the other images of its batch, up to rounding; bit for bit not on later generations."""
    dataset = make_dataset()
    few = painted(engine_of(foundation), dataset)
    more = painted(engine_of(foundation, generations_per_reference=3), dataset)
    assert len(more) == 9
    alone = painted(engine_of(foundation, batch_size=1, reference_order="rare-first"), dataset)
    for key, generated in few.items():
        np.testing.assert_array_equal(generated.image, more[key].image)
        assert np.abs(generated.image.astype(int) - alone[key].image).max() <= 1


def test_check_2_unet_calls_are_the_steps_of_each_batch(make_dataset, foundation):
    dataset = make_dataset()
    for scheduler, calls in (("dpm-solver++", 2), ("pndm", 3)):
        engine = engine_of(foundation, denoising={"scheduler": scheduler})
        assert engine.unet_calls == 0
        painted(engine, dataset)
        assert engine.unet_calls == 2 * 2 * calls  # generations, batches of two of three references


def test_check_2_boxes_beyond_the_limit_keep_their_pixels(make_dataset, foundation):
    many = [(2, [8 * (i % 8), 8 * (i // 8), 8, 8], 0) for i in range(30)]
    small = [(1, [1, 57, 5, 5], 0), (3, [1, 1, 6, 6], 0)]
    dataset = make_dataset([((64, 64), [*small, *many])])
    (generated,) = painted(engine_of(foundation, generations_per_reference=1), dataset).values()
    assert [i.untouched for i in generated.instances] == [True] + [False] * 31
    original = dataset.train.images.image("0.png")
    np.testing.assert_array_equal(generated.image[57:62, 1:6], original[57:62, 1:6])
    assert len(painted_boxes(generated.row)) == 30
    assert generated.row["objects"][1]["role"] == "covered"
    assert not any(instance.untouched for instance in labels(generated.row, pasted=False))


def test_the_model_sees_the_whole_image_at_its_own_size(make_dataset, foundation, monkeypatch):
    dataset = make_dataset(SCENES[:2])
    engine = engine_of(foundation, size={"width": 96}, generations_per_reference=1)
    rows = engine.plan(dataset)
    seen = {}

    def watch(rows, known, masks):
        seen.update(known=known, masks=masks)
        return known

    monkeypatch.setattr(engine.drawer.painter, "_diffuse", watch)
    painted(engine, dataset, rows)
    for row, known, mask in zip(rows, seen["known"], seen["masks"], strict=True):
        original = dataset.train.images.image(row["file_name"])
        np.testing.assert_array_equal(known, resized(original, 64, 96))
        assert mask.shape == (8, 12)


@pytest.mark.parametrize(
    "changes",
    [{"denoising": {"scheduler": "checkpoint", "low_memory": True}}, {"scheduled_sampling": 0.5},
     {"negative_prompt": "a fish", "prompt": "a photo of {names}"}, {"denoising": {"precision": "bfloat16"}},
     {"size": {"height": 48, "width": 80}, "feather": 0}],
)  # fmt: skip
def test_every_choice_runs_and_matters(make_dataset, foundation, changes):
    dataset = make_dataset(SCENES[:1])
    plain = painted(engine_of(foundation, generations_per_reference=1), dataset)[7, 0]
    other = painted(engine_of(foundation, generations_per_reference=1, **changes), dataset)[7, 0]
    assert (plain.image != other.image).any()


# --- bad input ------------------------------------------------------------------------------------


def test_planning_loads_no_weights(make_dataset, foundation):
    engine = engine_of(foundation)
    engine.plan(make_dataset())
    assert "painter" not in vars(engine.drawer)


def test_missing_references_are_refused_when_planning(make_dataset, foundation):
    dataset = make_dataset(missing=("train/0", "train/2", "val/1"))
    with pytest.raises(
        InputError, match=r"train/\d.png: no such image \(and 1 more\); gen2det paints it anew$"
    ):
        engine_of(foundation).plan(dataset)
    assert engine_of(foundation).plan(make_dataset(missing=("train/3", "val/0")))


def test_references_of_another_size_are_refused(make_dataset, foundation):
    dataset = make_dataset()
    rows = engine_of(foundation).plan(dataset)
    Image.fromarray(picture(0, 20, 30)).save(dataset.train.images_path / "0.png")
    with pytest.raises(InputError, match="0.png: 20 x 30 px, but its annotations say 96 x 64$"):
        painted(engine_of(foundation), dataset, rows)


@pytest.mark.parametrize("paste_back", [True, False])
def test_check_4_an_object_stays_in_its_box_if_painted_as_it_was(
    make_dataset, foundation, monkeypatch, paste_back
):
    engine = engine_of(foundation, size={"height": 128, "width": 128}, paste_back=paste_back)
    monkeypatch.setattr(Painter, "_diffuse", lambda self, rows, known, masks: known)
    for row in engine.plan(make_dataset()):
        x, y, w, h = (round(value) for value in row["objects"][0]["bbox"])
        original = np.full((row["height"], row["width"], 3), (20, 30, 40), np.uint8)
        original[y : y + h, x : x + w] = (220, 60, 90)
        (result,) = engine.drawer.painter.paint([row], [original])
        assert result.shape == original.shape
        rows, columns = np.nonzero(result[..., 0] > 120)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.subtract(edges, [x, y, x + w, y + h])).max() <= 1


def test_a_row_without_boxes_is_refused(make_dataset, foundation):
    dataset = make_dataset()
    engine = engine_of(foundation)
    rows = [{**engine.plan(dataset)[0], "objects": []}]
    with pytest.raises(InputError, match="no box to paint"):
        painted(engine, dataset, rows)


def test_models_that_cannot_do_it_are_refused_when_planning(make_dataset, tiny_pipeline_folder):
    dataset = make_dataset()
    with pytest.raises(InputError, match="^foundation.inpainting: no model given"):
        engine_of(FoundationSettings(diffusion={"path": str(tiny_pipeline_folder)})).plan(dataset)
    with pytest.raises(InputError, match="4 input channels, expected 9"):
        engine_of(FoundationSettings(inpainting={"path": str(tiny_pipeline_folder)})).plan(dataset)
    with pytest.raises(InputError, match=r"owner/name: no such folder, and a hub id needs a revision"):
        engine_of(FoundationSettings(inpainting={"path": "owner/name"})).plan(dataset)


def test_a_name_without_a_known_word_is_warned_of_once_and_painted(make_dataset, foundation, caplog):
    dataset = make_dataset(names=("cup", "qqzz", "christmas_tree"))
    engine = engine_of(foundation)
    with caplog.at_level(logging.WARNING):
        assert len(painted(engine, dataset)) == 6
    (record,) = [record for record in caplog.records if record.name.startswith("gen4det")]
    assert record.message.endswith("vocabulary: 'qqzz'")


# --- the shipped variants -------------------------------------------------------------------------

FILTERED = ("gen2det", "gen2det-coco", "gen2det-image-filter", "gen2det-unfiltered")


def shipped(request, changes=None):
    variants = read_variants(request.config.rootpath / "config" / "engines")
    names = [name for name in variants if name.startswith("gen2det")]
    return load_engines(names, changes or {}, variants, source="test")


def test_the_papers_constants(request):
    found = shipped(request)["gen2det"]
    settings, filters = found.settings, found.filter
    assert settings.checked_steps().draw.models == ("inpainting",)
    assert (settings.references, settings.generations_per_reference, settings.max_boxes) == (None, 2, 30)
    assert settings.denoising.model_dump(include={"scheduler", "steps", "guidance"}) == {
        "scheduler": "pndm", "steps": 50, "guidance": 7.5,
    }  # fmt: skip
    assert (settings.size.height, settings.size.width, settings.scheduled_sampling) == (512, 512, 1.0)
    assert settings.paste_back and settings.feather == 4
    assert filters.aesthetic.enabled and filters.aesthetic.threshold == "real-mean"
    assert filters.agreement.enabled and filters.agreement.min_iou == 0.3 and filters.agreement.same_class
    assert settings == engine_settings("gen2det", {}, source="defaults")


def test_variants_share_images_and_differ_in_their_filters(request):
    found = shipped(request, {"gen2det": {"references": 5}})
    found = {name: found[name] for name in FILTERED}
    assert {engine.images for engine in found.values()} == {"gen2det"}
    assert {engine.settings.references for engine in found.values()} == {5}
    enabled = {name: (e.filter.aesthetic.enabled, e.filter.agreement.enabled) for name, e in found.items()}
    assert enabled["gen2det"] == enabled["gen2det-coco"] == (True, True)
    assert enabled["gen2det-image-filter"] == (True, False)
    assert enabled["gen2det-unfiltered"] == (False, False)
    assert found["gen2det-coco"].filter.agreement.min_score == 0.1


def test_image_stores_of_zips_serve_as_references(make_dataset, foundation, tmp_path):
    import zipfile

    dataset = make_dataset(SCENES[:2])
    expected = painted(engine_of(foundation), dataset)
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        for path in dataset.train.images_path.iterdir():
            archive.write(path, path.name)
    descriptor = json.loads(dataset.path.read_text())
    descriptor["train"]["images"] = "train.zip"
    dataset.path.write_text(json.dumps(descriptor))
    zipped = load_dataset(dataset.path)
    assert isinstance(zipped.train.images, ImageStore)
    found = painted(engine_of(foundation), zipped)
    assert all(np.array_equal(found[key].image, expected[key].image) for key in expected)
