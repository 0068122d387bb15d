"""Training of the miniature's foundation models: resumable, honest, in the structure of the real ones."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTokenizer

from gen4det.core.errors import InputError
from gen4det.core.provenance import import_closure
from gen4det.miniature import clip, diffusion, inpainting
from gen4det.miniature.autoencoder import new_autoencoder, normalise_latents, to_tensor
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.corpus import build_corpus, category_shares, corpus_item
from gen4det.miniature.diffusion import new_text_encoder, new_unet, save_pipeline
from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_parts import PARTS
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.inpainting import GATE, GATES, box_mask, grounded_unet, windows_around
from gen4det.miniature.tokenizer import build_tokenizer

TINY = FoundationTraining(
    corpus_images=96,
    autoencoder_channels=(16, 16, 16),
    unet_channels=(16, 16, 32),
    text_width=16,
    clip_steps=2,
    clip_quality_pairs=4,
    clip_quality_steps=2,
    aesthetic_scenes=8,
    aesthetic_steps=3,
)


def test_normalised_latents_decode_to_the_same_pixels():
    torch.manual_seed(0)
    vae = new_autoencoder(TINY).eval()
    images = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        posterior = vae.encode(to_tensor(images, "cpu")).latent_dist
        before = vae.decode(posterior.mean).sample
        spread = posterior.std / posterior.mean.std((0, 2, 3), keepdim=True)
        normalise_latents(vae, images, "cpu")
        posterior = vae.encode(to_tensor(images, "cpu")).latent_dist
        after = vae.decode(posterior.mean).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(posterior.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(posterior.mean.std((0, 2, 3)), torch.ones(4), atol=1e-3)
    assert torch.allclose(posterior.std, spread, rtol=1e-3)


def test_the_grounded_unet_with_closed_gates_is_the_unet_it_comes_from():
    torch.manual_seed(0)
    base = new_unet(TINY, 16).eval()
    grounded = grounded_unet(TINY, base).eval()
    gates = [parameter for name, parameter in grounded.named_parameters() if name.endswith(GATES)]
    assert gates and all(gate.item() == pytest.approx(GATE) for gate in gates)
    for gate in gates:
        gate.data.zero_()
    latents, context = torch.randn(2, 4, 16, 16), torch.randn(2, 77, 16)
    extra = torch.rand(2, 5, 16, 16)
    grounding = {
        "boxes": torch.rand(2, 30, 4),
        "positive_embeddings": torch.randn(2, 30, 16),
        "masks": torch.ones(2, 30),
    }
    with torch.no_grad():
        expected = base(latents, 500, encoder_hidden_states=context).sample
        result = grounded(
            torch.cat([latents, extra], 1),
            500,
            encoder_hidden_states=context,
            cross_attention_kwargs={"gligen": grounding},
        ).sample
    assert torch.allclose(expected, result, atol=1e-5)


def test_box_mask_is_the_union_of_boxes_and_every_box_covers_a_cell():
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.25], [0.51, 0.51, 0.511, 0.511], [0.9, 0.9, 1.0, 1.0]]])
    present = torch.tensor([[True, True, False]])
    mask = box_mask(boxes, present, 16)[0, 0]
    expected = torch.ones(16, 16)
    expected[:4, :8] = 0
    expected[8, 8] = 0
    assert torch.equal(mask, expected)


def test_windows_hold_their_box_and_move_all_boxes_along():
    rng = np.random.default_rng(0)
    columns, rows = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="xy")
    scenes = torch.stack([columns, rows, columns, rows])[None].repeat(50, 1, 1, 1)
    low = torch.from_numpy(rng.uniform(0, 0.5, (50, 3, 2)))
    boxes = torch.cat([low, low + torch.from_numpy(rng.uniform(0.02, 0.46, (50, 3, 2)))], 2)
    slot = torch.from_numpy(rng.integers(0, 3, 50))
    cut, moved = windows_around(scenes, boxes, slot, 16, rng)
    assert cut.shape == (50, 4, 16, 16) and len(cut[:, :2, 0, 0].unique(dim=0)) > 20
    chosen = moved[torch.arange(50), slot]
    assert chosen.min() >= 0 and chosen.max() <= 1
    start = cut[:, :2, 0, 0].repeat(1, 2)[:, None]  # column and row of the window's first cell
    assert torch.allclose(moved * 16 + start, boxes * 32)


def test_models_load_as_the_library_classes_they_claim_to_be(tmp_path):
    corpus = tmp_path / "corpus"
    build_corpus(TINY, corpus)
    captions = json.loads((corpus / "captions.json").read_text())
    assert len(captions) == len(np.load(corpus / "images.npy")) == TINY.corpus_images
    build_tokenizer(tmp_path / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    parts = new_autoencoder(TINY), new_unet(TINY, 16), new_text_encoder(TINY, tokenizer), tokenizer
    save_pipeline(*parts, tmp_path / "stable-diffusion")
    pipeline = StableDiffusionPipeline.from_pretrained(
        tmp_path / "stable-diffusion", torch_dtype=torch.float32
    )
    image = pipeline("a photo of a cup", height=64, width=64, num_inference_steps=2, output_type="np")
    assert image.images.shape == (1, 64, 64, 3)
    assert isinstance(pipeline.vae, AutoencoderKL)
    inputs = {"corpus": corpus, "diffusion": tmp_path / "stable-diffusion"}
    job = FoundationJob(TINY, inputs, tmp_path / "c" / "result", tmp_path / "c" / "work")
    facts = clip.make(job)
    model = CLIPModel.from_pretrained(job.output, torch_dtype=torch.float32)
    assert model.text_projection.weight.shape == (16, 16)
    assert facts["steps"] == facts["quality"]["steps"] == 2
    assert {path.name for path in job.output.glob("*.csv")} == {"losses.csv", "losses_quality.csv"}


# --- categories, weights to start from ------------------------------------------------------------------


def test_categories_are_drawn_as_often_as_they_weigh():
    shares = category_shares({"key": 5.0, "kite": 0.1})
    assert shares.sum() == pytest.approx(1) and category_shares({}) is None
    items = [corpus_item(TINY, index, "diffusion", shares) for index in range(300)]
    names = [placed.category.name for item in items for placed in item.scene.objects]
    assert names.count("key") > 30 and names.count("kite") <= 4  # of some 340, 28.1 weights in all
    with pytest.raises(InputError, match="category_weights: no category 'keys'; categories: "):
        category_shares({"keys": 1.0})


def tiny_autoencoder(folder):
    torch.manual_seed(1)
    new_autoencoder(TINY).save_pretrained(folder)
    return folder


def diffusion_job(tmp_path, name: str, **changes) -> FoundationJob:
    settings = TINY.model_copy(update={"diffusion_steps": 2, **changes})
    inputs = {"autoencoder": tiny_autoencoder(tmp_path / "autoencoder")}
    return FoundationJob(settings, inputs, tmp_path / name / "result", tmp_path / name / "work")


def test_every_step_shows_pictures_that_were_rendered_for_it(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(diffusion, "BATCH", 4)
    monkeypatch.setattr(
        diffusion, "corpus_item", lambda *arguments: shown.append(arguments[1:3]) or corpus_item(*arguments)
    )
    diffusion.make(diffusion_job(tmp_path, "a"))
    assert shown == [(number, "diffusion") for number in range(8)]


def test_training_goes_on_from_given_weights_with_the_text_encoder_frozen_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(diffusion, "BATCH", 4)
    first = diffusion_job(tmp_path, "first")
    diffusion.make(first)

    def parts(job):
        pipeline = StableDiffusionPipeline.from_pretrained(job.output, torch_dtype=torch.float32)
        return [
            torch.cat([p.flatten() for p in m.parameters()]) for m in (pipeline.unet, pipeline.text_encoder)
        ]

    unet, text = parts(first)
    for learns in (False, True):
        job = diffusion_job(
            tmp_path, f"more-{learns}", diffusion_start=str(first.output), text_encoder_learns=learns
        )
        facts = diffusion.make(job)
        more_unet, more_text = parts(job)
        assert torch.equal(more_text, text) != learns
        assert 0 < (more_unet - unet).abs().max() < 0.01 and facts["cpu_seconds"] >= 0
        assert (job.output / "losses.csv").read_text().startswith("iteration,loss,cpu_seconds\n")


def test_weights_that_nobody_can_start_from_are_one_line(tmp_path):
    with pytest.raises(InputError, match="diffusion_start: nowhere: not a pipeline folder"):
        diffusion.make(diffusion_job(tmp_path, "a", diffusion_start="nowhere"))
    with pytest.raises(ValueError, match="text_encoder_learns: false needs a diffusion_start"):
        FoundationTraining(text_encoder_learns=False)
    shipped = str(Path(__file__).parents[2] / "resources/miniature/stable-diffusion")
    with pytest.raises(InputError, match="the settings say"):
        diffusion.make(diffusion_job(tmp_path, "b", diffusion_start=shipped))


def inpainting_job(tmp_path, base, name: str, **changes) -> FoundationJob:
    settings = TINY.model_copy(update={"inpainting_steps": 3, **changes})
    return FoundationJob(settings, {"diffusion": base}, tmp_path / name / "result", tmp_path / name / "work")


def grounded(folder) -> torch.Tensor:
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
    return torch.cat([p.flatten() for p in unet.parameters()])


def test_the_grounded_unet_goes_on_from_given_weights_with_scenes_rendered_for_each_step(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(inpainting, "WINDOW_BATCH", 2)
    monkeypatch.setattr(inpainting, "SCENE_BATCH", 1)
    monkeypatch.setattr(diffusion, "BATCH", 2)
    shown = []
    render = inpainting.render_scenes
    monkeypatch.setattr(
        inpainting, "render_scenes", lambda *arguments: shown.extend(arguments[1]) or render(*arguments)
    )
    job = diffusion_job(tmp_path, "base")
    diffusion.make(job)
    first = inpainting_job(tmp_path, job.output, "first")
    inpainting.make(first)
    assert len(shown) == len(set(shown)) >= 3
    more = inpainting_job(tmp_path, job.output, "more", inpainting_start=str(first.output))
    inpainting.make(more)
    assert 0 < (grounded(more.output) - grounded(first.output)).abs().max() < 0.01
    with pytest.raises(InputError, match="inpainting_start: nowhere: not a pipeline folder"):
        inpainting.make(inpainting_job(tmp_path, job.output, "a", inpainting_start="nowhere"))
    with pytest.raises(InputError, match="its U-Net is of another size than expected here"):
        inpainting.make(inpainting_job(tmp_path, job.output, "b", inpainting_start=str(job.output)))


def test_what_the_text_conditional_unet_learned_since_is_added(tmp_path):
    """Task arithmetic: grounded + (now - parent), the new input channels and gates as they were."""
    torch.manual_seed(3)
    parent, now = (new_unet(TINY, 16) for _ in range(2))
    start = grounded_unet(TINY, parent)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    parent.save_pretrained(tmp_path / "parent/unet")
    start.save_pretrained(tmp_path / "start/unet")
    folders = {"inpainting_start": str(tmp_path / "start"), "inpainting_parent": str(tmp_path / "parent")}
    found = inpainting.start(TINY.model_copy(update=folders), now).state_dict()
    before, moved = (
        start.state_dict(),
        {name: it - parent.state_dict()[name] for name, it in now.state_dict().items()},
    )
    for name, value in found.items():
        expected = before[name].clone()
        if name == "conv_in.weight":
            expected[:, :4] += moved[name]
        elif name in moved:
            expected += moved[name]
        assert torch.allclose(value, expected, atol=1e-6), name
    assert not torch.equal(found["conv_in.weight"], before["conv_in.weight"])
    folders["inpainting_parent"] = str(tmp_path / "start")
    with pytest.raises(InputError, match="inpainting_parent: .*: its U-Net is of another size"):
        inpainting.start(TINY.model_copy(update=folders), now)


def test_rendered_scenes_give_the_boxes_of_their_objects():
    shares = category_shares({"key": 1e6})
    images, boxes, categories = inpainting.render_scenes(TINY, range(4, 8), shares)
    assert images.shape == (4, 128, 128, 3) and images.dtype == np.uint8
    present = categories >= 0
    assert [row.tolist() for row in present] == [sorted(row.tolist(), reverse=True) for row in present]
    assert present.any(1).all() and set(categories[present].tolist()) == {
        [category.name for category in CATEGORIES].index("key")
    }
    assert (boxes[present][:, :2] < boxes[present][:, 2:]).all() and boxes.min() >= 0 and boxes.max() <= 1
    again = inpainting.render_scenes(TINY, range(5, 6), shares)
    assert np.array_equal(again[0][0], images[1]) and torch.equal(again[1][0], boxes[1])


# --- what changed is trained anew -------------------------------------------------------------------------

SMALL = {"corpus_images": 40, "autoencoder_channels": [16, 16, 16], "autoencoder_steps": 3}


def make(folder, part: str, *more: str, status: int = 0, before: str = "", **settings) -> str:
    """Make one part by the stage's command line; what it says."""
    program = f"{before}\nimport runpy\nrunpy.run_module('gen4det.stages.foundation', run_name='__main__')"
    text = json.dumps({**SMALL, **settings})
    arguments = [part, "--settings", text, "--folder", str(folder), "--device", "cpu", *more]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments], capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr
    return done.stderr


def autoencoder(folder) -> bytes:
    return (folder / "autoencoder/result/diffusion_pytorch_model.safetensors").read_bytes()


# The renderer's pictures become negatives.
OTHER_RENDERER = """
import dataclasses
from gen4det.miniature import corpus
from gen4det.miniature.renderer import render_scene
def negative(*arguments):
    scene = render_scene(*arguments)
    return dataclasses.replace(scene, image=255 - scene.image)
corpus.render_scene = negative
"""


def test_no_checkpoint_or_cache_survives_a_change_of_the_renderer(tmp_path):
    make(tmp_path, "corpus")
    make(tmp_path, "autoencoder")
    first = autoencoder(tmp_path)
    assert not (tmp_path / "autoencoder/work").exists()
    record = json.loads((tmp_path / "autoencoder/result.record.json").read_text())
    assert record["steps"] == 3 and record["settings"].keys() == {
        "seed", "image_size", "autoencoder_channels", "autoencoder_steps",
    }  # fmt: skip
    said = make(tmp_path, "autoencoder", "--max-seconds", "0.001", status=75)
    assert (tmp_path / "autoencoder/work/losses/checkpoint.pt").exists(), said
    make(tmp_path, "corpus", before=OTHER_RENDERER)
    said = make(tmp_path, "autoencoder", status=2)
    assert "autoencoder/work: begun with other corpus; delete this folder to begin anew" in said
    shutil.rmtree(tmp_path / "autoencoder/work")
    make(tmp_path, "autoencoder")
    assert autoencoder(tmp_path) != first
    make(tmp_path, "corpus")
    make(tmp_path, "autoencoder")  # nothing of the second training is left: it begins anew by itself
    assert autoencoder(tmp_path) == first


def test_a_part_whose_input_is_missing_is_one_line(tmp_path):
    assert "corpus/result: no such folder; make this part first" in make(tmp_path, "autoencoder", status=2)


def test_each_part_names_all_settings_that_it_reads_and_knows_no_other_part_s_code():
    for name, part in PARTS.items():
        assert set(part.settings) <= set(FoundationTraining.model_fields), name
        assert all(read in PARTS for read in part.reads)
        closure = import_closure("gen4det.stages.foundation", part.module)
        assert ("gen4det.detection.detectors" in closure) == (name == "backbone"), name
        assert ("gen4det.miniature.judge" in closure) == (name == "judge"), name
        assert "gen4det.miniature.diffusion" not in closure or name in (
            "diffusion", "inpainting", "clip", "judge",
        ), name  # fmt: skip
