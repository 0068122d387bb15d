"""The engine from a data set to drawn images, with a tiny random pipeline. Checks 3, 5, 8 and 10."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from filtered import write_filtered
from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings
from gen4det.core.yaml_files import merge
from gen4det.data.annotations import index_annotations
from gen4det.data.datasets import Dataset, load_dataset
from gen4det.data.label_sets import as_dictionaries
from gen4det.data.model_settings import ModelSource
from gen4det.diffusion.pipelines import load_text_to_image
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engines.base import Inputs, engine_settings
from gen4det.engines.detdiffusion.draw import Drawer
from gen4det.engines.detdiffusion.fit_attributes import Fit as FitAttributes
from gen4det.engines.detdiffusion.fit_generator import Fit as FitGenerator
from gen4det.engines.detdiffusion.fit_generator import Learner
from gen4det.engines.detdiffusion.layouts import read_layouts
from gen4det.engines.detdiffusion.plan import Planner
from gen4det.engines.detdiffusion.samples import Samples
from gen4det.engines.detdiffusion.vocabulary import extend_vocabulary
from gen4det.engines.shard_writer import ShardInProgress
from gen4det.engines.steps import settings_of_step
from gen4det.training.stop import Deadline, Stopped

TINY = {
    "method": "detdiffusion",
    "detector": {"detector": "any"},
    "words": {"columns": 8, "rows": 8},
    "size": {"height": 64, "width": 64},
    "generator": {
        "steps": 30, "batch": 2, "parts": 1, "learning_rate": 3e-3, "warmup": 2, "precision": "float32",
        "checkpointing": False, "perception": {"channels": 16, "weight": 0.5},
    },
    "denoising": {"scheduler": "dpm-solver++", "steps": 2, "guidance": 3.0},
    "batch_size": 3,
}  # fmt: skip
NAMES = ("cup", "fish", "christmas_tree")
SIDE = 80


def make_dataset(folder, images: int = 8) -> Dataset:
    """Three objects in each image; the last image has two and gives no layout."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        data = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 3 * i + 1, "name": it} for i, it in enumerate(NAMES)],
        }
        for number in range(images):
            pixels = rng.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
            data["images"].append(
                {"id": 10 + number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE}
            )
            for position in range(2 if number == images - 1 else 3):
                x, y = (int(it) for it in rng.integers(0, SIDE - 32, 2))
                pixels[y : y + 24, x : x + 30] = [40 + 80 * position] * 3
                data["annotations"].append({
                    "id": len(data["annotations"]), "image_id": 10 + number, "category_id": 3 * position + 1,
                    "bbox": [x, y, 30, 24], "area": 720, "iscrowd": 0,
                    "segmentation": [[x, y, x + 30, y, x + 30, y + 24, x, y + 24]],
                })  # fmt: skip
            Image.fromarray(pixels).save(folder / split / f"{number}.png")
        (folder / f"{split}.json").write_text(json.dumps(data))
    splits = {
        it: {"annotations": f"{it}.json", "images": it, "images_sha256": "0" * 64} for it in ("train", "val")
    }
    (folder / "dataset.json").write_text(json.dumps({"name": "tea", "format": "coco", **splits}))
    return load_dataset(folder / "dataset.json")


def settings_of(**changes):
    return engine_settings("detdiffusion", merge(TINY, changes), source="test")


def part_of(settings, step: str):
    """What a step is handed: its own fields alone."""
    steps = type(settings).checked_steps()
    model = settings_of_step(type(settings), steps.fields(steps[step]))
    return parse_settings(model, settings.section(steps[step]), source="test")


def detections_of(dataset: Dataset, folder):
    """A detector that finds every first object, and nothing else."""
    data, found = dataset.train.load(), {}
    for label in data["annotations"]:
        found.setdefault(str(label["image_id"]), [[1, 0.9, *label["bbox"]]])
    split = dataset.train.hash
    path = folder / "found.json"
    path.write_text(
        json.dumps({"of": {"split": split}, "split": split, "detector": "d", "detections": found})
    )
    return path


class Steps:
    """The steps of the engine, one after the other."""

    def __init__(self, folder, pipeline_folder, **changes):
        self.folder, self.settings = folder, settings_of(**changes)
        self.foundation = FoundationSettings(diffusion={"path": str(pipeline_folder)})
        self.dataset = make_dataset(folder / "data")
        self.models = {}

    def fit(self, kind, name: str, work: str = "work", **inputs) -> dict:
        settings = part_of(self.settings, name)
        worker = kind(settings, self.foundation, 0, Inputs(self.dataset, self.models, **inputs))
        output = self.folder / name
        with Deadline() as stop:
            facts = worker.fit(self.folder / f"{work}-{name}", {"test": 1}, output, stop)
        self.models = self.models | {name: output}
        return facts

    def fit_all(self) -> dict:
        asked = {"dataset": [detections_of(self.dataset, self.folder)]} if self.settings.detector else {}
        self.fit(FitAttributes, "attributes", detections=asked)
        return self.fit(FitGenerator, "generator")

    def plan(self, **changes) -> list[dict]:
        settings = engine_settings(
            "detdiffusion", merge(self.settings.model_dump(mode="json"), changes), source="t"
        )
        return Planner(
            part_of(settings, "images"), self.foundation, 0, Inputs(self.dataset, self.models)
        ).plan()

    def draw(self, rows, **changes):
        settings = engine_settings(
            "detdiffusion", merge(self.settings.model_dump(mode="json"), changes), source="t"
        )
        drawer = Drawer(part_of(settings, "images"), self.foundation, 0, Inputs(self.dataset, self.models))
        batches = [
            [row for row in rows if row["batch"] == batch] for batch in sorted({row["batch"] for row in rows})
        ]
        return [item for batch in drawer.synthesize(batches) for item in batch]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, tiny_pipeline_folder):
    steps = Steps(tmp_path_factory.mktemp("fitted"), tiny_pipeline_folder)
    steps.facts = steps.fit_all()
    return steps


# --- fitting ----------------------------------------------------------------------------------------


def test_both_losses_fall_and_the_record_says_what_was_learned_from(fitted):
    assert (
        fitted.facts["layouts"] == 7
        and fitted.facts["objects"] == 21
        and fitted.facts["objects_left_out"] == 0
    )
    assert fitted.facts["new_words"] == 66 and fitted.facts["head_parameters"] > 0
    for name, losses in losses_of(fitted).items():
        assert np.mean(losses[-10:]) < np.mean(losses[:10]), name


def losses_of(steps: Steps) -> dict[str, np.ndarray]:
    """Both losses, step by step."""
    table = (steps.folder / "work-generator/losses.csv").read_text().splitlines()
    columns = table[0].split(",")
    rows = np.array([[float(it or "nan") for it in line.split(",")] for line in table[1:]])
    return {name: rows[:, columns.index(name)] for name in ("noise_loss", "perception_loss")}


def test_the_fitted_generator_opens_with_plain_diffusers_without_the_head(fitted, tmp_path):
    folder = fitted.models["generator"]
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    assert not [name for name in pipeline.unet.state_dict() if "lateral" in name]
    prompt = fitted.plan()[0]["prompt"]
    assert len(pipeline.tokenizer("<l63> [hard]", add_special_tokens=False).input_ids) == 2
    pipeline.set_progress_bar_config(disable=True)

    def image():
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
        return pipeline(prompt, latents=noise, num_inference_steps=2, output_type="np").images

    plain = image()
    settings = settings_of()
    layouts = read_layouts(fitted.dataset.train.load(), settings.layouts)
    learner = Learner(pipeline, settings, layouts, fitted.dataset.train.images, [1, 4, 7])  # wraps it
    learner.step_loss(0, np.random.default_rng(0))
    for module in (pipeline.unet, pipeline.text_encoder):
        module.eval()
    assert np.array_equal(plain, image())


def test_the_same_seed_fits_the_same_bytes_also_when_stopped(fitted, tiny_pipeline_folder, tmp_path):
    class After:
        """Stops after some steps."""

        exit_status, count = 143, 0

        def step(self):
            self.count += 1

        def reached(self):
            return self.count >= 11

    steps = Steps(tmp_path, tiny_pipeline_folder)
    asked = {"dataset": [detections_of(steps.dataset, steps.folder)]}
    steps.fit(FitAttributes, "attributes", detections=asked)
    worker = FitGenerator(
        part_of(steps.settings, "generator"), steps.foundation, 0, Inputs(steps.dataset, steps.models)
    )
    with pytest.raises(Stopped):
        worker.fit(tmp_path / "work-generator", {"test": 1}, tmp_path / "generator", After())
    assert not (tmp_path / "generator").exists()
    steps.fit(FitGenerator, "generator")
    for part in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        files = [folder / "generator" / part for folder in (fitted.folder, tmp_path)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_the_autoencoder_gets_no_gradient_and_a_lambda_of_zero_builds_no_head(fitted):
    pipeline = load_text_to_image(ModelSource(path=str(fitted.models["generator"])))
    layouts = read_layouts(fitted.dataset.train.load(), fitted.settings.layouts)
    images = fitted.dataset.train.images
    learner = Learner(pipeline, fitted.settings, layouts, images, [1, 4, 7])
    losses = learner.step_loss(0, np.random.default_rng(0))
    sum(losses.values()).backward()
    assert all(p.grad is None for p in pipeline.vae.parameters())
    for module in (pipeline.unet, learner.head):
        assert all(p.grad.abs().sum() > 0 for p in module.parameters() if p.ndim > 1)
    words = pipeline.text_encoder.get_input_embeddings().weight.grad
    assert words.abs().sum(1).count_nonzero() > 10
    plain = settings_of(generator={"perception": {"weight": 0}})
    without = Learner(pipeline, plain, layouts, images, [1, 4, 7])
    assert without.head is None and set(without.step_loss(0, np.random.default_rng(0))) == {"noise_loss"}


def test_samples_are_mirrored_shuffled_and_at_times_without_prompt(fitted, tiny_pipeline_folder):
    pipeline = load_text_to_image(ModelSource(path=str(tiny_pipeline_folder)))
    settings = settings_of(generator={"perception": {"masks": "semantic"}})
    extend_vocabulary(pipeline, settings.words, attributes=True)
    labels = fitted.dataset.train.load()
    layouts = read_layouts(labels, settings.layouts, {0: "easy", 1: "hard"})
    samples = Samples(
        layouts, fitted.dataset.train.images, [1, 4, 7], pipeline.tokenizer, settings.words,
        settings.generator, (64, 64), (8, 8),
    )  # fmt: skip
    drawn = [samples(0, np.random.default_rng(seed)) for seed in range(400)]
    empty = sum(it.prompt == "" for it in drawn)
    assert 20 < empty < 65  # one in ten
    first = Counter(it.prompt.split()[3] for it in drawn if it.prompt)
    assert set(first) == {"cup", "fish", "christmas"} and min(first.values()) > 80
    assert all(("[easy]" in it.prompt and "[hard]" in it.prompt) for it in drawn if it.prompt)
    sums = {it.masks[0].sum(0).argmax() for it in drawn}
    assert len(sums) == 2  # mirrored or not
    assert all(
        it.weights.mean() == pytest.approx(1, abs=1e-5) and it.pixels.shape == (64, 64, 3) for it in drawn[:5]
    )


# --- drawing ----------------------------------------------------------------------------------------


def test_strategies_change_attributes_alone(fitted):
    rows = {strategy: fitted.plan(strategy=strategy) for strategy in ("origin", "easy", "hard")}
    for strategy in ("easy", "hard"):
        for origin, other in zip(rows["origin"], rows[strategy], strict=True):
            assert {it["attribute"] for it in other["objects"]} == {strategy}
            assert {**origin, "prompt": "", "objects": []} == {**other, "prompt": "", "objects": []}
            kept = [[(it["category_id"], it["bbox"]) for it in row["objects"]] for row in (origin, other)]
            assert kept[0] == kept[1]
            plain = [row["prompt"].replace("[easy]", "[hard]") for row in (origin, other)]
            assert plain[0] == plain[1]
    # Of each image the detector finds the first object, so all have mixed attributes and no prompt stays.
    assert all({it["attribute"] for it in row["objects"]} == {"easy", "hard"} for row in rows["origin"])
    images = {strategy: fitted.draw(found[:3]) for strategy, found in rows.items()}
    again = fitted.draw(rows["hard"][:3])
    for place in range(3):
        assert not np.array_equal(images["easy"][place].image, images["hard"][place].image)
        assert np.array_equal(again[place].image, images["hard"][place].image)


def test_check_5_a_strategy_changes_images_with_other_attributes_alone(fitted, tmp_path):
    shutil.copytree(fitted.models["attributes"], tmp_path / "attributes")
    path = tmp_path / "attributes/attributes.json"
    table, labels = json.loads(path.read_text()), fitted.dataset.train.load()["annotations"]
    for label in labels:  # all easy in one image, all hard in another; the third stays mixed
        if label["image_id"] in (10, 11):
            table["attributes"][str(label["id"])] = "easy" if label["image_id"] == 10 else "hard"
    path.write_text(json.dumps(table))
    models = fitted.models | {"attributes": tmp_path / "attributes"}
    found, drawn = {}, {}
    for strategy in ("origin", "easy", "hard"):
        settings = part_of(settings_of(strategy=strategy, batch_size=1), "images")
        planner = Planner(settings, fitted.foundation, 0, Inputs(fitted.dataset, models))
        rows = {row["reference_image_id"]: row for row in planner.plan()}
        found[strategy] = {image: rows[image] | {"index": 0, "batch": 0} for image in (10, 11, 12)}
        drawer = Drawer(settings, fitted.foundation, 0, Inputs(fitted.dataset, models))
        drawn[strategy] = {
            image: next(drawer.synthesize([[row]]))[0].image for image, row in found[strategy].items()
        }
    for strategy, same in (("easy", {10}), ("hard", {11})):
        for image in (10, 11, 12):
            assert (found[strategy][image] == found["origin"][image]) == (image in same)
            assert np.array_equal(drawn[strategy][image], drawn["origin"][image]) == (image in same)
    pipeline = load_text_to_image(ModelSource(path=str(models["generator"])))
    ids = pipeline.tokenizer.convert_tokens_to_ids(["[easy]", "[hard]"])
    easy, hard = pipeline.text_encoder.get_input_embeddings().weight[ids]
    assert not torch.equal(easy, hard)


def test_labels_are_the_boxes_of_the_prompt_in_the_size_of_the_real_image(fitted):
    rows = fitted.plan()
    real = fitted.dataset.train.load()
    assert len(rows) == 7 and {row["reference_image_id"] for row in rows} == set(range(10, 17))
    drawn = fitted.draw(rows)
    boxes = {tuple(it["bbox"]) for it in real["annotations"] if it["image_id"] != 17}
    for row, item in zip(rows, drawn, strict=True):
        assert item.image.shape == (SIDE, SIDE, 3) and item.keep
        assert [it.bbox for it in item.instances] == [it["bbox"] for it in row["objects"]]
        assert {tuple(it.bbox) for it in item.instances} <= boxes
        assert item.about["attributes"] == [it["attribute"] for it in row["objects"]]
    assert sum(len(item.instances) for item in drawn) == 21
    assert fitted.dataset.train.load() == real


def test_check_10_a_detector_is_trained_on_all_real_images_and_one_for_each_layout(fitted, tmp_path):
    from gen4det.detection.datasets import DetectionDataset
    from gen4det.detection.training import load_sources

    before = fitted.dataset.train.annotations_path.read_bytes()
    rows, run = fitted.plan(), {"run": "x", "dataset": fitted.dataset.train.hash}
    with ShardInProgress(tmp_path / "00000", run, 0, 1) as work:
        work.save(0, fitted.draw(rows))
        work.assemble([0], fitted.dataset.categories)
    shard = tmp_path / "00000.arrow"
    path = write_filtered([shard], tmp_path / "set.json", dataset=fitted.dataset.path)
    drawn, rejected = as_dictionaries(path)
    assert len(drawn["images"]) == len(rows) == 7 and not rejected["rejected"]
    by_image = index_annotations(drawn)
    for row, image in zip(rows, drawn["images"], strict=True):
        labels = [(it["category_id"], it["bbox"]) for it in by_image[image["id"]]]
        assert labels == [(it["category_id"], it["bbox"]) for it in row["objects"]]
    sources, categories = load_sources(fitted.dataset, [path])
    union = DetectionDataset(sources, categories, [], masks=False, keep_empty=False)
    assert len(union) == 8 + 7 and int(union.synthetic.sum()) == 7
    assert fitted.dataset.train.annotations_path.read_bytes() == before


def test_a_smaller_number_of_layouts_is_a_part_of_a_larger_one_and_more_images_are_added_behind(fitted):
    few, all_ = fitted.plan(references=3), fitted.plan()
    assert few == all_[:3]
    twice = fitted.plan(images_per_layout=2)
    assert [row["prompt"] for row in twice[:7]] == [row["prompt"] for row in all_]
    assert len({row["seed"] for row in twice}) == 14


def test_layouts_may_be_mirrored_and_moved(fitted):
    moved = fitted.plan(mirrored=1.0, max_shift=12)
    assert all(row["mirrored"] for row in moved) and any(row["shift"] != [0, 0] for row in moved)
    still = {row["reference_image_id"]: row for row in fitted.plan()}
    for row in moved:
        original = {it["category_id"]: it["bbox"] for it in still[row["reference_image_id"]]["objects"]}
        for entry in row["objects"]:
            x, y, w, h = original[entry["category_id"]]
            left, top = SIDE - x - w + row["shift"][0], y + row["shift"][1]
            right, bottom = min(left + w, SIDE), min(top + h, SIDE)
            left, top = max(left, 0), max(top, 0)
            assert entry["bbox"] == pytest.approx([left, top, right - left, bottom - top])


def test_a_generator_with_another_grid_or_attributes_of_other_thresholds_are_refused(fitted):
    with pytest.raises(InputError, match="words for 64 locations.*4 x 8 = 32"):
        fitted.plan(words={"rows": 4})
    with pytest.raises(InputError, match="words for 64 locations"):
        fitted.draw(fitted.plan()[:1], words={"rows": 4})
    with pytest.raises(InputError, match="other thresholds"):
        fitted.plan(attributes={"min_score": 0.9})
    with pytest.raises(InputError, match="size.width: 60 px is not a multiple"):
        fitted.plan(size={"width": 60})


def test_geodiffusion_has_neither_attributes_nor_head(tmp_path, tiny_pipeline_folder):
    steps = Steps(
        tmp_path, tiny_pipeline_folder, detector=None, generator={"perception": {"weight": 0}, "steps": 1}
    )
    facts = steps.fit_all()
    assert facts["new_words"] == 64 and facts["head_parameters"] == 0
    assert not any("[" in row["prompt"] for row in steps.plan())
    with pytest.raises(InputError, match="strategy: 'hard' needs attributes"):
        steps.plan(strategy="hard")
