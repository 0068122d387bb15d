"""The engine from a data set to labelled images, with a tiny random Stable Diffusion."""

import json

import numpy as np
import pytest

from draw_step import DrawStep
from gen4det.core.errors import InputError
from gen4det.core.yaml_files import merge, read_yaml
from gen4det.data.datasets import load_dataset
from gen4det.data.masks import area_of_rle, box_of_rle, rle_to_mask
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engines.base import engine_module, engine_settings, known_methods, settings_class
from gen4det.engines.mosaicfusion.settings import Settings

TINY = {
    "images_per_category": 3,
    "region_height": 48,
    "region_width": 64,
    "overlap_height": 16,
    "overlap_width": 16,
    "centre_sigma": 0.5,
    "denoising": {"scheduler": "lms", "steps": 2, "guidance": 7.5},
    "batch_size": 2,
    "masks": {"solver": {"sigma_spatial": 4}, "components": {"min_area_fraction": 0.01}},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    names = ["cup", "fish", "table"]
    annotations = {
        "images": [],
        "annotations": [],
        "categories": [
            {"id": i + 1, "name": name, "def": "used for tea", "frequency": group}
            for i, (name, group) in enumerate(zip(names, "rcf", strict=True))
        ],
    }
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(annotations))
        (folder / split).mkdir()
    splits = {
        split: {"annotations": f"{split}.json", "images": split, "images_sha256": "0" * 64}
        for split in ("train", "val")
    }
    (folder / "dataset.json").write_text(json.dumps({"name": "tea", "format": "lvis", **splits}))
    return load_dataset(folder / "dataset.json")


@pytest.fixture(scope="module")
def foundation(tiny_pipeline_folder):
    return FoundationSettings(diffusion={"path": str(tiny_pipeline_folder)})


def engine_of(foundation, workers=0, **changes):
    settings = engine_settings("mosaicfusion", merge(TINY, changes), source="test")
    return DrawStep(settings, foundation, workers)


def batches_of(rows):
    return [[row for row in rows if row["batch"] == batch] for batch in range(rows[-1]["batch"] + 1)]


def same(first, second) -> bool:
    return all(
        a.row == b.row
        and np.array_equal(a.image, b.image)
        and (a.instances, a.rejected, a.keep) == (b.instances, b.rejected, b.keep)
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture(scope="module")
def drawn(dataset, foundation):
    """All images of one run."""
    engine = engine_of(foundation)
    batches = batches_of(engine.plan(dataset))
    return batches, list(engine.synthesize(dataset, batches))


def test_one_result_per_row_and_one_label_or_reason_per_region(drawn):
    batches, results = drawn
    assert [[g.row for g in members] for members in results] == batches
    for generated in (g for members in results for g in members):
        row = generated.row
        assert generated.image.shape == (row["height"], row["width"], 3) == (96, 128, 3)
        assert generated.image.dtype == np.uint8 and generated.image.std() > 0
        labelled = [(i.category_id) for i in generated.instances]
        rejected = [r["category_id"] for r in generated.rejected]
        assert sorted(labelled + rejected) == sorted(r["category_id"] for r in row["regions"])
        for entry in generated.rejected:
            assert entry["reason"] and entry["bbox"] in [r["box"] for r in row["regions"]]
        assert generated.keep == (not generated.rejected)
    assert any(g.instances for members in results for g in members)


def test_masks_have_the_size_of_the_canvas_and_lie_in_a_region(drawn):
    for generated in (g for members in drawn[1] for g in members):
        for instance in generated.instances:
            assert instance.rle["size"] == [96, 128]
            assert area_of_rle(instance.rle) > 0 and box_of_rle(instance.rle) == instance.bbox
            mask = rle_to_mask(instance.rle)
            inside = []
            for region in generated.row["regions"]:
                x, y, w, h = region["box"]
                if region["category_id"] == instance.category_id:
                    inside.append(mask[y : y + h, x : x + w].sum() == mask.sum())
            assert any(inside)


def test_a_batch_does_not_depend_on_those_before_it(dataset, foundation, drawn):
    batches, results = drawn
    engine = engine_of(foundation)
    (alone,) = engine.synthesize(dataset, batches[1:2])
    assert same(alone, results[1])
    assert engine.unet_calls == 2 * 4  # steps, regions
    later, earlier = engine.synthesize(dataset, [batches[1], batches[0]])
    assert same(later, results[1]) and same(earlier, results[0])


def test_workers_change_no_label(dataset, foundation, drawn):
    batches, results = drawn
    engine = engine_of(foundation, workers=1)
    for expected, members in zip(results, engine.synthesize(dataset, batches), strict=True):
        assert same(expected, members)


def test_batches_are_read_and_handed_out_one_by_one(dataset, foundation, drawn):
    """Nothing is held back but the batch that is being labelled, and stopping early is clean."""
    taken = []
    batches = (taken.append(batch[0]["batch"]) or batch for batch in drawn[0])
    results = engine_of(foundation).synthesize(dataset, batches)
    next(results)
    assert taken == [0, 1]
    results.close()


def test_rejected_regions_drop_the_image_or_not(dataset, foundation):
    strict = {"masks": {"components": {"min_area_fraction": 0.2, "max_area_fraction": 0.45}}}
    found = {}
    for drop in (True, False):
        engine = engine_of(foundation, drop_image=drop, **strict)
        rows = engine.plan(dataset)
        found[drop] = [g for members in engine.synthesize(dataset, batches_of(rows)) for g in members]
    assert any(g.rejected for g in found[True])
    for dropped, kept in zip(found[True], found[False], strict=True):
        assert (dropped.instances, dropped.rejected) == (kept.instances, kept.rejected)
        assert dropped.keep == (not dropped.rejected)
        assert kept.keep == bool(kept.instances)


@pytest.mark.parametrize(
    "changes",
    [{"token": "max"}, {"token": "official", "random_stream": "official", "rounding": "truncate"},
     {"objects": [1, 2]}, {"denoising": {"scheduler": "checkpoint", "low_memory": True}},
     {"attention_resolutions": [4, 8], "attention_mid_block": True, "attention_steps": [1, 2]}],
)  # fmt: skip
def test_every_choice_runs(dataset, foundation, changes):
    engine = engine_of(foundation, images_per_category=1, **changes)
    rows = engine.plan(dataset)
    ((generated,),) = engine.synthesize(dataset, [rows])
    assert len(generated.instances) + len(generated.rejected) == len(rows[0]["regions"])


def test_planning_loads_no_weights(dataset, foundation):
    engine = engine_of(foundation)
    engine.plan(dataset)
    assert "sampler" not in vars(engine.drawer) and engine.unet_calls == 0


def test_sizes_that_do_not_fit_the_model_are_refused_when_planning(dataset, foundation):
    with pytest.raises(InputError, match="region_height: 44 px is not a multiple"):
        engine_of(foundation, region_height=44).plan(dataset)


def test_a_batch_of_different_cuts_is_an_error(dataset, foundation, drawn):
    mixed = engine_of(foundation, objects=[1, 2, 4], images_per_category=9).plan(dataset)
    with pytest.raises(ValueError, match="cut alike"):
        next(engine_of(foundation).synthesize(dataset, [mixed]))


# --- the contract and the shipped variants ------------------------------------------------------


def test_engines_are_found_by_name():
    assert "mosaicfusion" in known_methods()
    assert engine_module("mosaicfusion", "draw") == "gen4det.engines.mosaicfusion.draw"
    with pytest.raises(InputError, match="no engine is called 'nothing'; engines: .*mosaicfusion"):
        engine_settings("nothing", {}, source="x")


def test_a_training_free_engine_has_one_step():
    (step,) = settings_class("mosaicfusion").checked_steps().in_order
    assert (step.name, step.kind) == ("images", "draw")


def variants(repository):
    written = read_yaml(repository / "config" / "engines" / "mosaicfusion.yaml")

    def resolve(name):
        own = dict(written[name])
        base = own.pop("base", None)
        return merge(resolve(base), own) if base else own

    return {
        name: engine_settings("mosaicfusion", resolve(name), source=f"mosaicfusion.yaml: {name}")
        for name in written
    }


def test_the_papers_constants(request):
    paper = variants(request.config.rootpath)["mosaicfusion"]
    assert (paper.region_height, paper.region_width) == (384, 512)
    assert (paper.overlap_height, paper.overlap_width, paper.centre_sigma) == (48, 64, 0.375)
    assert (paper.denoising.scheduler, paper.denoising.steps, paper.denoising.guidance) == ("lms", 50, 7.5)
    assert (paper.objects, paper.images_per_category, paper.main_groups) == ((4,), 25, ("r",))
    assert paper.masks.aggregation == "paper" and paper.masks.components.reference == "region"
    assert paper == Settings(masks=merge(Settings().masks.model_dump(), {"aggregation": "paper"}))


def test_the_released_codes_constants(request):
    official = variants(request.config.rootpath)["mosaicfusion-official"]
    assert (official.denoising.scheduler, official.denoising.steps) == ("checkpoint", 50)
    assert (official.random_stream, official.token, official.rounding) == ("official", "official", "truncate")
    assert official.masks.aggregation == official.masks.components.reference == "official"
    assert official.masks.components.connectivity == 8
    assert official.drop_image and official.blend == "gaussian"


def test_every_row_of_table_2_is_one_change(request):
    found = variants(request.config.rootpath)
    paper = found.pop("mosaicfusion").model_dump()
    found.pop("mosaicfusion-official")
    assert len(found) == 16
    for name, settings in found.items():
        changed = {key for key, value in settings.model_dump().items() if value != paper[key]}
        assert changed, name
        assert len(changed) == 1 or changed in (
            {"overlap_height", "overlap_width"}, {"prompt", "definition"}
        ), name  # fmt: skip
