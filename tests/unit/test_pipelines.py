"""Loading pretrained models: what is there works, what is wrong is one line that names it."""

import json
import shutil

import pytest
import torch
from diffusers import LMSDiscreteScheduler, PNDMScheduler

from gen4det.core.errors import InputError
from gen4det.diffusion.pipelines import load_text_to_image, set_precision
from gen4det.diffusion.schedulers import SAMPLERS, make_scheduler
from gen4det.diffusion.settings import DenoisingSettings, ModelSource
from gen4det.diffusion.sources import latent_cell, load_tokenizer
from gen4det.diffusion.text import TextStates
from tiny_models import tiny_pipeline


def source(folder, **more):
    return ModelSource(path=str(folder), **more)


@pytest.fixture
def copy(tiny_pipeline_folder, tmp_path):
    return shutil.copytree(tiny_pipeline_folder, tmp_path / "model")


def test_a_folder_is_loaded_without_safety_checker(tiny_pipeline_folder):
    pipeline = load_text_to_image(source(tiny_pipeline_folder))
    assert pipeline.safety_checker is None and pipeline.feature_extractor is None
    assert pipeline.unet.dtype == torch.float32 and not pipeline.unet.training
    assert not any(parameter.requires_grad for parameter in pipeline.unet.parameters())
    assert latent_cell(source(tiny_pipeline_folder)) == pipeline.vae_scale_factor == 8
    tokenizer = load_tokenizer(source(tiny_pipeline_folder))
    assert tokenizer("spatula").input_ids == pipeline.tokenizer("spatula").input_ids


def test_half_precision_files_are_loaded_as_float32(tmp_path):
    tiny_pipeline(blocks=3, layers=1).to(torch.float16).save_pretrained(tmp_path)
    pipeline = load_text_to_image(source(tmp_path))
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}
    assert latent_cell(source(tmp_path)) == 4


def test_precision_is_the_unets_alone(tiny_pipeline_folder):
    pipeline = load_text_to_image(source(tiny_pipeline_folder))
    set_precision(pipeline, DenoisingSettings(precision="bfloat16"))
    assert pipeline.unet.dtype == torch.bfloat16
    assert pipeline.vae.dtype == pipeline.text_encoder.dtype == torch.float32


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="foundation.diffusion: no model given"):
        load_text_to_image(None)
    with pytest.raises(InputError, match=r"nowhere: no such folder$"):
        load_text_to_image(source("nowhere"))
    with pytest.raises(InputError, match="owner/name: no such folder, and a hub id needs a revision"):
        load_text_to_image(source("owner/name"))
    with pytest.raises(InputError, match="cannot be loaded: .*model_index.json"):
        load_text_to_image(source(tmp_path))


def test_another_kind_of_pipeline_is_refused(copy):
    index = copy / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionXLPipeline"))
    with pytest.raises(InputError, match="holds a StableDiffusionXLPipeline, expected"):
        load_text_to_image(source(copy))


@pytest.mark.parametrize("damage", ["missing", "truncated", "pickle", "garbled config"])
def test_damaged_files_are_one_line_with_the_folder(copy, damage):
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "pickle":
        torch.save({}, weights.with_suffix(".bin"))
        weights.unlink()
    else:
        (copy / "vae" / "config.json").write_text("{")
    with pytest.raises(InputError) as caught:
        load_text_to_image(source(copy))
    assert str(caught.value).startswith(f"{copy}: ") and "\n" not in str(caught.value)


def test_a_sampler_is_the_same_whatever_the_checkpoint_was_saved_with(copy):
    """Also where the file spells out every default, as save_pretrained of this version writes it."""
    file = copy / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    assert config["timestep_spacing"] == "leading"
    scheduler = make_scheduler(PNDMScheduler.from_pretrained(file.parent), "lms")
    assert isinstance(scheduler, LMSDiscreteScheduler)
    scheduler.set_timesteps(50)
    assert float(scheduler.init_noise_sigma) == pytest.approx(14.6146, abs=1e-3)
    assert len(scheduler.timesteps) == 50


@pytest.mark.parametrize("name", ["checkpoint", *SAMPLERS])
def test_samplers_keep_the_noise_schedule(name):
    checkpoint = PNDMScheduler(beta_start=0.001, beta_end=0.01, beta_schedule="scaled_linear")
    made = make_scheduler(checkpoint, name)
    assert made is not checkpoint
    torch.testing.assert_close(made.alphas_cumprod, checkpoint.alphas_cumprod)


def test_prompts_are_encoded_once_and_as_the_pipeline_does(tiny_pipeline_folder):
    pipeline = load_text_to_image(source(tiny_pipeline_folder))
    text = TextStates(pipeline)
    prompts = ["a photo of a cup", "", "fish " * 100]
    for prompt in prompts:
        assert text(prompt) is text(prompt)
        expected, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
        torch.testing.assert_close(text(prompt), expected)
