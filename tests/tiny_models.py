"""Random models with the structure and file formats of Stable Diffusion 1, small enough for unit tests.

Register the fixtures with `from tiny_models import tiny_pipeline_folder, ...` or read them from conftest.
"""

from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionGLIGENPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

# CLIP's own vocabulary (49,408 entries) ships with no package. These pieces make the same words fall apart
# in the same places: "spatula" ends in a token that is also the article, "headwear" ends in "wear", and
# "applesauce" in "sauce".
PIECES = """
a photo of single the and table tennis cap christmas tree wear sauce cup fish is used for with to
spat+ul+a head+wear apple+sauce arm+b+and mon+it+or com+put+er equip+ment
""".split()


def tiny_tokenizer() -> CLIPTokenizer:
    """A CLIPTokenizer whose merges know the pieces above; all else falls to letters."""
    letters = sorted(ByteLevel.alphabet())
    vocab = {piece: index for index, piece in enumerate([*letters, *(letter + "</w>" for letter in letters)])}
    merges: dict[tuple[str, str], None] = {}
    for word in PIECES:
        *inner, last = word.split("+")
        for piece in [*(list(part) for part in inner), [*last[:-1], last[-1] + "</w>"]]:
            left = piece[0]
            for right in piece[1:]:
                merges[left, right] = None
                left += right
                vocab.setdefault(left, len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=list(merges), model_max_length=77)


def tiny_unet(sample_size: int = 8, **changes) -> UNet2DConditionModel:
    """Cross-attention in three of four down and up blocks and in the middle, as in Stable Diffusion 1:
    15 layers without the middle."""
    torch.manual_seed(0)
    shape = {
        "sample_size": sample_size,
        "block_out_channels": (16, 16, 32, 32),
        "layers_per_block": 2,
        "norm_num_groups": 8,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
    }
    unet = UNet2DConditionModel(**{**shape, **changes}).eval()
    # A fresh model's attention is almost flat: sharpen it, so that tests see prompts and tokens matter.
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_q", "attn2.to_k")):
            module.weight.data.mul_(4)
    return unet.requires_grad_(False)


def tiny_pipeline(blocks: int = 4, layers: int = 2) -> StableDiffusionPipeline:
    """Complete pipeline; the autoencoder makes images 2 ** (blocks - 1) times smaller.

    With `layers` 2 the U-Net has the 15 cross-attention layers of Stable Diffusion 1; 1 is faster.
    """
    unet = tiny_unet(layers_per_block=layers)
    torch.manual_seed(1)
    vae = AutoencoderKL(
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    )
    tokenizer = tiny_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    # CLIP's initial weights are so small that all prompts would look alike to the U-Net.
    torch.nn.init.normal_(text_encoder.get_input_embeddings().weight)
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_grounded_pipeline(blocks: int = 4, layers: int = 1) -> StableDiffusionGLIGENPipeline:
    """The same with a nine-channel U-Net that sees boxes and phrases. Paints 64 x 64 px with `blocks` 4."""
    parts = tiny_pipeline(blocks, layers).components
    unet = tiny_unet(layers_per_block=layers, in_channels=9, attention_type="gated")
    # Fresh gates are shut and fresh null boxes zero; but boxes and their absence must make a difference.
    generator = torch.Generator().manual_seed(2)
    for name, parameter in unet.named_parameters():
        if name.endswith(("alpha_attn", "alpha_dense")):
            parameter.data.fill_(2.0)
        elif "position_net.null" in name:
            parameter.data.normal_(generator=generator)
    parts = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    pipeline = StableDiffusionGLIGENPipeline(
        **parts, unet=unet, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def tiny_pipeline_folder(tmp_path_factory) -> Path:
    """The tiny pipeline in diffusers' folder layout, safetensors."""
    folder = tmp_path_factory.mktemp("tiny-stable-diffusion")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_grounded_folder(tmp_path_factory) -> Path:
    """The tiny grounded pipeline in diffusers' folder layout, safetensors."""
    folder = tmp_path_factory.mktemp("tiny-gligen-inpainting")
    tiny_grounded_pipeline().save_pretrained(folder)
    return folder
