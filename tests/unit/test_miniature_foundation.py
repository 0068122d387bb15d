"""Training of the miniature's foundation models: resumable, honest, in the structure of the real ones."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPModel, CLIPTokenizer

from gen4det.core.errors import InputError
from gen4det.miniature.autoencoder import new_autoencoder, normalise_latents, to_tensor
from gen4det.miniature.clip import train_clip
from gen4det.miniature.corpus import build_corpus
from gen4det.miniature.diffusion import new_text_encoder, new_unet, save_pipeline
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.inpainting import GATE, GATES, box_mask, grounded_unet, windows_around
from gen4det.miniature.tokenizer import build_tokenizer
from gen4det.miniature.training import loss_curve, train

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


def fit_line(work, steps=30, stop_at=None, fingerprint="line"):
    """Fit y = 3 x with noise from the step's generator; returns averaged weight and running mean."""
    torch.manual_seed(0)
    line = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))

    def step_loss(step, rng):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.from_numpy(rng.normal(size=(8, 1))).float() + 0.1 * torch.randn(8, 1)
        return (line(x) - 3 * x).square().mean()

    settings = {"steps": steps, "name": fingerprint}
    train([line], step_loss, steps=steps, learning_rate=0.1, work=work, fingerprint=settings, warmup=3)
    return line[0].weight.item(), line[1].running_mean.item()


def test_training_stopped_and_resumed_gives_the_same_weights(tmp_path):
    whole = fit_line(tmp_path / "whole" / "work")
    with pytest.raises(SystemExit) as stopped:
        fit_line(tmp_path / "cut" / "work", stop_at=11)
    assert stopped.value.code == 143
    assert fit_line(tmp_path / "cut" / "work") == whole
    assert fit_line(tmp_path / "cut" / "work") == whole  # finished: nothing is trained again


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    fit_line(tmp_path / "a" / "work")
    with pytest.raises(InputError, match="other settings"):
        fit_line(tmp_path / "a" / "work", fingerprint="another")


def test_loss_curve_is_drawn(tmp_path):
    fit_line(tmp_path / "a" / "work", steps=200)
    loss_curve(tmp_path / "a" / "work", tmp_path / "loss.png", "line")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


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
    train_clip(TINY, corpus, tmp_path / "stable-diffusion", tmp_path / "clip", tmp_path / "c" / "work", "cpu")
    clip = CLIPModel.from_pretrained(tmp_path / "clip", torch_dtype=torch.float32)
    assert clip.text_projection.weight.shape == (16, 16)
