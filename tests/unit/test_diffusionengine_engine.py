"""DiffusionEngine from references to labelled images, with tiny random models. Acceptance checks 4 to 8."""

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny_adapter import save_adapter, save_model

from filtered import write_filtered
from gen4det.core.errors import InputError
from gen4det.core.provenance import write_json
from gen4det.core.yaml_files import merge
from gen4det.data.datasets import load_dataset
from gen4det.data.label_sets import as_dictionaries
from gen4det.detection.labelling import detect_in_features
from gen4det.detection.weights import Detector
from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.latents import decode
from gen4det.diffusion.noise import image_generator
from gen4det.diffusion.pipelines import load_text_to_image
from gen4det.diffusion.settings import FoundationSettings, ModelSource
from gen4det.diffusion.text import TextStates
from gen4det.engines import base
from gen4det.engines.base import Inputs, engine_settings, load_worker
from gen4det.engines.diffusionengine import draw as draw_module
from gen4det.engines.diffusionengine.draw import NO_AREA, Machine
from gen4det.engines.diffusionengine.page import Descendant, agreement, encode_ratio_page, similarity
from gen4det.engines.diffusionengine.redraw import redraw
from gen4det.engines.diffusionengine.settings import LAST_STEP, PIXELS
from gen4det.engines.shard_writer import ShardInProgress
from gen4det.filters.settings import FilterSettings
from gen4det.orchestration.variants import load_engines, read_variants

ENGINES = Path(__file__).parents[2] / "config" / "engines"
NAMES = ["cup", "fish", "key"]
CATEGORIES = [{"id": 3 * i + 1, "name": name} for i, name in enumerate(NAMES)]
SIZES = [(70, 50), (64, 64), (50, 70), (64, 64)]  # width, height
TINY = {
    "method": "diffusionengine",
    "size": {"short": 48, "long": 72},
    "generations_per_reference": 1,
    "sampling": {"steps": 10, "encode_ratio": [0.2, 0.3]},
    "batch_size": 2,
    "least_score": 0.0,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pipeline(model):
    return load_text_to_image(ModelSource(path=str(model)))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, model) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter") / "weights.safetensors", model, CATEGORIES)


def pictures(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (count, 5, 5, 3), dtype=np.uint8)
    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.array(Image.fromarray(it).resize((width, height), bicubic)) for it in coarse])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def write_data(folder: Path, names: list[str] = NAMES):
    categories = [{"id": 3 * i + 1, "name": name} for i, name in enumerate(names)]
    images = []
    (folder / "images").mkdir()
    for i, (width, height) in enumerate(SIZES):
        images.append({"id": 7 + i, "file_name": f"{i}.png", "width": width, "height": height})
        Image.fromarray(pictures(1, height, width, seed=i)[0]).save(folder / "images" / f"{i}.png")
    label = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [3, 3, 20, 20], "area": 400, "iscrowd": 0}
    data = {"images": images, "annotations": [label], "categories": categories}
    captions = {"annotations": [{"image_id": 8, "caption": "A fish."}]}
    for name, value in (("train", data), ("val", data), ("captions", captions)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    split = {"images": "images", "images_sha256": "0" * 64}
    write_json(
        folder / "dataset.json",
        {
            "name": "tea",
            "format": "coco",
            "train": split | {"annotations": "train.json", "captions": "captions.json"},
            "val": split | {"annotations": "val.json"},
        },
    )
    return load_dataset(folder / "dataset.json")


def worker(kind: str, dataset, model, weights, /, **changes):
    settings = engine_settings("diffusionengine", merge(TINY, changes), source="test")
    module = base.engine_module("diffusionengine", kind)
    foundation = FoundationSettings(diffusion={"path": str(model)})
    return load_worker(module, kind, settings, foundation, 0, Inputs(dataset, detectors={"adapter": weights}))


def batches_of(rows: list[dict]) -> list[list[dict]]:
    return [[row for row in rows if row["batch"] == number] for number in range(rows[-1]["batch"] + 1)]


@pytest.fixture(scope="module")
def drawn(dataset, model, adapter):
    """(rows, results in their order) of the whole set."""
    rows = worker("plan", dataset, model, adapter).plan()
    drawer = worker("draw", dataset, model, adapter)
    results = [item for batch in drawer.synthesize(batches_of(rows)) for item in batch]
    assert drawer.unet_calls == sum(batch[0]["steps"] for batch in batches_of(rows))
    return rows, results


# --- check 4: the last step ---------------------------------------------------------------------------


def run(pipeline, images: int = 1, *, steps: int = 3, nominal: int = 50, guidance: float = 7.5, **options):
    text = TextStates(pipeline)
    return redraw(
        pipeline,
        FeatureTaps(pipeline.unet, "blocks"),
        pictures(images, 32, 48),
        torch.cat([text(f"a photo of a {name}") for name in NAMES[:images]]),
        text(""),
        nominal_steps=nominal,
        steps=steps,
        eta=[0.1, 0.3, 0.4][:images],
        guidance=[guidance] * images,
        generators=[image_generator(seed) for seed in range(images)],
        **options,
    )


@contextlib.contextmanager
def watched(unet):
    """(time step, batch) of each call of a U-Net, and the latents and text of the last one."""
    calls, last = [], {}

    def note(module, arguments, named):
        calls.append((int(arguments[1]), len(arguments[0])))
        last.update(latents=arguments[0], text=named["encoder_hidden_states"])

    hook = unet.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls, last
    finally:
        hook.remove()


@pytest.mark.parametrize("steps", [1, 15, 29, 50])
def test_check_4_as_many_evaluations_as_steps_down_to_time_step_1(pipeline, steps):
    with watched(pipeline.unet) as (calls, _):
        run(pipeline, steps=steps)
    assert [t for t, _ in calls] == [20 * left - 19 for left in range(steps, 0, -1)]
    assert {batch for _, batch in calls} == {2}


@pytest.mark.parametrize(("images", "guidance"), [(1, 7.5), (3, 7.5), (1, 1.0), (3, 0.5)])
@pytest.mark.parametrize("low_memory", [False, True])
def test_check_4_features_are_those_of_the_last_call_with_prompt(pipeline, images, guidance, low_memory):
    with watched(pipeline.unet) as (_, last):
        latents, features = run(pipeline, images, steps=2, guidance=guidance, low_memory=low_memory)
    assert torch.isfinite(latents).all() and len(latents) == images
    prompted = slice(-images, None)
    expected = {}
    hooks = [
        pipeline.unet.get_submodule(name).register_forward_hook(
            lambda module, arguments, output, name=name: expected.update(
                {name: output[0] if isinstance(output, tuple) else output}
            )
        )
        for name in ("up_blocks.2", "up_blocks.3")
    ]
    with torch.no_grad():
        pipeline.unet(last["latents"][prompted], 1, encoder_hidden_states=last["text"][prompted])
    for hook in hooks:
        hook.remove()
    largest = torch.cat([expected["up_blocks.2"], expected["up_blocks.3"]], dim=1)
    torch.testing.assert_close(features[0], largest, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [0, 51])
def test_check_4_no_step_and_too_many_are_errors(pipeline, steps):
    with pytest.raises(ValueError, match=f"{steps} of 50 steps: expected 1 to 50"):
        run(pipeline, steps=steps)


@pytest.mark.parametrize("steps", [4, 10])
def test_pictures_are_those_of_diffusers_own_pipeline(pipeline, steps):
    """Where the share of the steps survives diffusers' rounding."""
    latents, _ = run(pipeline, steps=steps, nominal=10)
    with torch.inference_mode():
        ours = decode(pipeline.vae, latents, "round").numpy()[0]
    other = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    other.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    other.set_progress_bar_config(disable=True)
    theirs = other(
        "a photo of a cup",
        image=Image.fromarray(pictures(1, 32, 48)[0]),
        strength=steps / 10,
        num_inference_steps=10,
        guidance_scale=7.5,
        eta=0.1,
        generator=[image_generator(0)],
        output_type="np",
    ).images[0]
    assert abs(ours - 255 * theirs).max() <= 1


def test_images_of_a_batch_have_their_own_noise_guidance_and_eta(pipeline):
    text = TextStates(pipeline)
    both, _ = run(pipeline, 2, steps=2)
    alone, _ = redraw(
        pipeline,
        FeatureTaps(pipeline.unet, "blocks"),
        pictures(2, 32, 48)[1:],
        text("a photo of a fish"),
        text(""),
        nominal_steps=50,
        steps=2,
        eta=[0.3],
        guidance=[7.5],
        generators=[image_generator(1)],
    )
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)


# --- check 5: labels ----------------------------------------------------------------------------------


def shipped_filter(name: str) -> FilterSettings:
    return load_engines([name], {}, read_variants(ENGINES), source="test")[name].filter


def labelled(scores, boxes=None, categories=None) -> base.Generated:
    """What the engine makes of an adapter's answers."""
    machine = SimpleNamespace(categories={0: 1, 1: 4}, settings=SimpleNamespace(least_score=0.0))
    boxes = boxes or [[5, 5, 20, 20]] * len(scores)
    answers = [
        {"category_id": category, "score": float(np.float32(score)), "bbox": box}
        for score, box, category in zip(scores, boxes, categories or [0] * len(scores), strict=True)
    ]
    labels = base.Labels()
    Machine._label(machine, labels, answers, LAST_STEP)
    row = {"index": 0, "reference_image_id": 7, "number": 0}
    return base.Generated(row, np.zeros((48, 64, 3), np.uint8), labels.instances, labels.rejected)


def filtered(folder: Path, items: list[base.Generated], settings: FilterSettings) -> dict:
    """The synthetic set that these images become."""
    for index, item in enumerate(items):
        item.row = item.row | {"index": index}
    with ShardInProgress(folder / "00000", {"run": "x"}, 0, 1) as work:
        work.save(0, items)
        work.assemble([0], CATEGORIES)
    return as_dictionaries(write_filtered([folder / "00000.arrow"], folder / "set.json", settings))[0]


def test_check_5_a_score_of_exactly_the_threshold_is_too_little(tmp_path):
    data = filtered(tmp_path, [labelled([0.29, 0.30, 0.3001, 0.9])], shipped_filter("diffusionengine"))
    assert sorted(a["score"] for a in data["annotations"]) == [0.3001, 0.9]


def test_check_5_duplicates_stay_unless_suppression_is_asked_for(tmp_path):
    boxes = [[5, 5, 20, 20], [6, 5, 20, 20], [5, 5, 20, 20], [40, 5, 9, 9]]
    item = labelled([0.9, 0.8, 0.7, 0.6], boxes, [0, 0, 1, 0])
    settings = shipped_filter("diffusionengine")
    for folder in ("all", "suppressed", "named"):
        (tmp_path / folder).mkdir()
    assert len(filtered(tmp_path / "all", [item], settings)["annotations"]) == 4
    suppressing = settings.model_copy(update={"max_overlap": 0.5})
    kept = filtered(tmp_path / "suppressed", [item], suppressing)["annotations"]
    assert [(a["score"], a["category_id"]) for a in kept] == [(0.9, 1), (0.7, 4), (0.6, 1)]
    one_name = shipped_filter("diffusionengine-coco-one-name-4").model_copy(
        update={"generations_per_reference": None}
    )
    kept = filtered(tmp_path / "named", [item], one_name)["annotations"]
    assert [(a["score"], a["category_id"]) for a in kept] == [(0.9, 1), (0.6, 1)]


def test_check_5_an_image_without_a_box_is_dropped_and_counted(tmp_path):
    items = [labelled([0.9]), labelled([0.1]), labelled([])]
    data = filtered(tmp_path, items, shipped_filter("diffusionengine"))
    assert len(data["images"]) == 1


def test_boxes_of_unknown_categories_and_without_area_are_no_labels():
    item = labelled([0.9, 0.9, 0.9], [[1, 1, 4, 4], [1, 1, 0, 4], [1, 1, 4, 4]], [0, 1, 2])
    assert [instance.category_id for instance in item.instances] == [1]
    assert [record["reason"] for record in item.rejected] == [NO_AREA]


def test_check_5_no_more_boxes_than_asked_for(dataset, model, adapter):
    rows = worker("plan", dataset, model, adapter).plan()
    drawer = worker("draw", dataset, model, adapter, max_per_image=5)
    for item in next(drawer.synthesize(batches_of(rows)[:1])):
        assert len(item.instances) + len(item.rejected) == 5


# --- check 6: geometry --------------------------------------------------------------------------------


def test_check_6_boxes_lie_in_images_of_the_planned_size(drawn):
    rows, results = drawn
    sizes = set()
    for row, item in zip(rows, results, strict=True):
        height, width = item.image.shape[:2]
        assert [height, width] == row["crop"][2:]
        sizes.add((height, width))
        assert item.instances, "a random adapter is unsure, but answers"
        for instance in item.instances:
            x, y, w, h = instance.bbox
            assert x >= 0 and y >= 0 and w > 0 and h > 0
            assert x + w <= width + 1e-3 and y + h <= height + 1e-3
    assert len(sizes) == 3


# --- check 7: the set ---------------------------------------------------------------------------------


def test_check_7_the_set_is_cocos_and_says_where_each_image_comes_from(drawn, tmp_path):
    rows, results = drawn
    data = filtered(tmp_path, results, FilterSettings(min_score=0.0))
    write_json(tmp_path / "set.json", data)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "set.json"))
        found = truth.loadRes([
            {key: a[key] for key in ("image_id", "category_id", "bbox", "score")} for a in data["annotations"]
        ])  # fmt: skip
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] > 0.5  # its own labels, up to the limit of 100 an image
    ids = [annotation["id"] for annotation in data["annotations"]]
    assert len(set(ids)) == len(ids) and max(ids) < 2**53
    assert all(a["iscrowd"] == 0 and a["area"] == a["bbox"][2] * a["bbox"][3] for a in data["annotations"])
    assert {a["category_id"] for a in data["annotations"]} <= {category["id"] for category in CATEGORIES}
    for row, image in zip(rows, data["images"], strict=True):
        for key in ("reference_image_id", "prompt", "negative_prompt", "seed", "steps", "eta", "guidance"):
            assert image[key] == row[key]
        assert image["scheduler"] == "DDIM" and image["nominal_steps"] == 10
        assert len(image["model"]) == 16 and len(image["adapter"]) == 64
    assert {image["prompt"] for image in data["images"]} == {
        "A fish",
        "A photo",
        "A photo, with cup in the photo",
    }


# --- check 8: the same seed ---------------------------------------------------------------------------


def test_check_8_batches_in_any_order_give_the_same_bytes(drawn, dataset, model, adapter):
    rows, results = drawn
    batches = batches_of(rows)[::-1]
    again = worker("draw", dataset, model, adapter).synthesize(batches)
    found = {item.row["index"]: item for batch in again for item in batch}
    for item in results:
        other = found[item.row["index"]]
        np.testing.assert_array_equal(item.image, other.image)
        assert item.instances == other.instances


# --- the control --------------------------------------------------------------------------------------


def test_the_control_labels_the_finished_picture_as_the_adapter_sees_real_ones(
    drawn, dataset, model, adapter
):
    rows, results = drawn
    drawer = worker("draw", dataset, model, adapter, control=True)
    first = batches_of(rows)[0]
    for item, plain in zip(next(drawer.synthesize([first])), results, strict=False):
        np.testing.assert_array_equal(item.image, plain.image)
        by = {name: [i for i in item.instances if i.labeller == name] for name in (LAST_STEP, PIXELS)}
        assert by[LAST_STEP] == plain.instances
        detector: Detector = drawer.machine.adapter
        pixels = torch.from_numpy(item.image).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.inference_mode():
            (seen,) = detect_in_features(detector, detector.model.backbone(pixels))
        np.testing.assert_allclose(
            [i.bbox for i in by[PIXELS]], [d["bbox"] for d in seen if min(d["bbox"][2:]) > 0], atol=1e-2
        )
    kept = {"diffusionengine-control": LAST_STEP, "diffusionengine-reencoded": PIXELS}
    for name, labeller in kept.items():
        thresholds = shipped_filter(name).min_score
        assert thresholds[labeller] == 0.3 and min(set(thresholds.values()) - {0.3}) == 1.0


# --- bad input ----------------------------------------------------------------------------------------


def refused(dataset, model, adapter, message: str, **changes) -> None:
    rows = worker("plan", dataset, model, adapter).plan()
    with pytest.raises(InputError, match=message):
        next(worker("draw", dataset, model, adapter, **changes).synthesize(batches_of(rows)))


def test_an_adapter_of_another_unet_is_refused(dataset, adapter, tmp_path):
    other = save_model(tmp_path / "other", seed=1)
    refused(dataset, other, adapter, "other: another model .* than the one that .*weights.safetensors")


def test_an_adapter_of_other_categories_is_refused_and_a_remapped_one_is_not(model, adapter, tmp_path):
    data = write_data(tmp_path, ["cup", "spoon", "sofa"])
    refused(data, model, adapter, "does not have: 'fish', 'key'; train it again")
    voc = save_adapter(
        tmp_path / "weights.safetensors", model, [{"id": 5, "name": "couch"}, {"id": 6, "name": "x"}]
    )
    rows = worker("plan", data, model, voc).plan()
    drawer = worker("draw", data, model, voc, adapter={"detector": "adapter", "dataset": "coco"})
    items = next(drawer.synthesize(batches_of(rows)))
    assert {i.category_id for item in items for i in item.instances} == {7}  # VOC's sofa


def test_a_detector_on_no_diffusion_model_is_refused(dataset, model, adapter, monkeypatch):
    def load(*arguments, **options):
        return Detector(SimpleNamespace(backbone=torch.nn.Identity()), CATEGORIES, [])

    monkeypatch.setattr(draw_module, "load_detector", load)
    refused(dataset, model, adapter, "a detector on Identity; the adapter of diffusionengine sits on")


def test_references_that_are_missing_or_damaged_are_named(model, adapter, tmp_path):
    data = write_data(tmp_path)
    planned = worker("plan", data, model, adapter).plan()
    (tmp_path / "images" / "2.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"2\.png"):
        list(worker("draw", data, model, adapter).synthesize(batches_of(planned)))
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(InputError, match=r"2\.png: no such image; diffusionengine draws it anew"):
        worker("plan", load_dataset(tmp_path / "dataset.json"), model, adapter).plan()


def test_captions_that_are_none_are_named(model, adapter, tmp_path):
    data = write_data(tmp_path)
    for text, message in (('{"annotations": [{"image_id": "a"}]}', "annotations.0"), ("[]", "captions")):
        (tmp_path / "captions.json").write_text(text)
        with pytest.raises(InputError, match=message):
            worker("plan", data, model, adapter).plan()


# --- the page -----------------------------------------------------------------------------------------


def test_the_page_of_encode_ratios_measures_what_it_shows():
    image = pictures(1, 48, 64)[0]
    assert similarity(image, image) == pytest.approx(1)
    assert similarity(image, 255 - image) == pytest.approx(-1)
    assert similarity(image, np.full_like(image, 7)) == 0
    box = {"bbox": [5, 5, 20, 20], "score": 0.9, "name": "cup"}
    seen = [box | {"bbox": [7, 5, 20, 20]}, box | {"bbox": [40, 20, 5, 5], "name": "fish"}]
    drawn = Descendant(image, [box, box | {"name": "fish"}, box | {"score": 0.3}], seen)
    assert agreement(drawn, 0.3) == (1, 2)
    page = encode_ratio_page([(Descendant(image, [], [box]), [drawn])], [0.5], np.array([[0.4]]), 0.3)
    panels = page.subfigs[1].axes
    assert [len(panel.patches) for panel in panels] == [1, 4]  # the third box is not certain enough
