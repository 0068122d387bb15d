"""The public models have what the engines read of them. On the meta device: shapes without numbers."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from test_costs import COSTS, ROOT, costs
from torch.utils.flop_counter import FlopCounterMode

import real_architectures as real
from gen4det.core.yaml_files import read_yaml
from gen4det.diffusion.cross_attention import CrossAttentionRecorder, TokenMaps
from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.grounded_inpainting import MAX_BOXES
from gen4det.diffusion.guidance import guided_noise

TEXT_TO_IMAGE = ["stable-diffusion-1-4", "stable-diffusion-2-0-base"]
GROUNDED = "gligen-1-4-inpainting"
PUBLISHED_PARAMETERS = {
    "stable-diffusion-1-4": 859_520_964,
    "stable-diffusion-2-0-base": 865_910_724,
}


@pytest.fixture(scope="module")
def unets():
    return {name: real.unet(name) for name in (*TEXT_TO_IMAGE, GROUNDED)}


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def boxes(images: int) -> dict[str, torch.Tensor]:
    shapes = {"boxes": (4,), "positive_embeddings": (768,), "masks": ()}
    return {name: empty(images, MAX_BOXES, *shape) for name, shape in shapes.items()}


def evaluate(unet, images: int, height: int, width: int, **more) -> torch.Tensor:
    states = empty(images, 77, unet.config.cross_attention_dim)
    with torch.no_grad():
        latents = empty(images, unet.config.in_channels, height, width)
        return unet(latents, torch.tensor(1, device="meta"), states, **more).sample


def test_parameters_are_the_published_ones(unets):
    assert {name: real.parameters(unets[name]) for name in PUBLISHED_PARAMETERS} == PUBLISHED_PARAMETERS
    assert real.parameters(real.autoencoder()) == 83_653_863
    assert real.parameters(real.clip_image_tower()) == 303_966_208


@pytest.mark.parametrize("name", TEXT_TO_IMAGE)
def test_mosaicfusion_reads_fifteen_layers_at_its_three_resolutions(unets, name):
    """Table 2g of MosaicFusion: 1/8, 1/16 and 1/32 of the image, i.e. factors 1, 2 and 4 of the latents."""
    unet = unets[name]
    before = dict(unet.attn_processors)
    recorder = CrossAttentionRecorder(unet, (1, 2, 4, 8))
    assert recorder.layers == {1: 5, 2: 5, 4: 5}
    read = {
        layer.removesuffix(".processor")
        for layer, processor in unet.attn_processors.items()
        if processor is not before[layer]
    }
    layer = "{}_blocks.{}.attentions.{}.transformer_blocks.0.attn2".format
    down = {layer("down", block, number) for block in (0, 1, 2) for number in (0, 1)}
    up = {layer("up", block, number) for block in (1, 2, 3) for number in (0, 1, 2)}
    assert read == down | up
    assert CrossAttentionRecorder(unet, (1, 2, 4), mid_block=True).layers == {1: 5, 2: 5, 4: 5, 8: 1}


@pytest.mark.parametrize("name", TEXT_TO_IMAGE)
def test_attention_has_the_shape_of_a_region(unets, name):
    """A region of 408 x 544 px: 51 x 68 cells, whose halves are rounded up."""
    unet = unets[name]
    recorder = CrossAttentionRecorder(unet, (1, 2, 4))
    maps = TokenMaps([[5], [6, 7]], "mean", (51, 68), recorder.factors, "meta")
    assert maps.sizes == {1: (51, 68), 2: (26, 34), 4: (13, 17)}
    with recorder.into(maps, rows=slice(2, None)):
        assert evaluate(unet, 4, 51, 68).shape == (4, 4, 51, 68)
    # Stable Diffusion 1 has 8 heads everywhere; 2 has 5, 10 and 20, so that each has 64 channels.
    heads = {TEXT_TO_IMAGE[0]: 5 * (8 + 8 + 8), TEXT_TO_IMAGE[1]: 5 * (5 + 10 + 20)}
    assert maps.count == heads[name]
    assert {factor: tuple(sums.shape) for factor, sums in maps.sums.items()} == {
        1: (2, 51 * 68, 1),
        2: (2, 26 * 34, 1),
        4: (2, 13 * 17, 1),
    }


def test_gen2dets_model_takes_image_mask_and_boxes(unets):
    unet = unets[GROUNDED]
    assert unet.conv_in.in_channels == 9
    gated = [name for name, module in unet.named_modules() if name.endswith(".fuser")]
    assert len(gated) == 16, "one in each transformer block, the middle one included"
    assert unet.position_net.null_positive_feature.shape == (768,)
    for condition in (boxes(2), None):
        predicted = guided_noise(
            unet,
            empty(2, 9, 64, 64),
            torch.tensor(1, device="meta"),
            empty(2, 77, 768),
            empty(1, 77, 768),
            7.5,
            boxes=condition,
        )
        assert predicted.shape == (2, 4, 64, 64) and predicted.dtype == torch.float32


# --- what they compute --------------------------------------------------------------------------------


def gigaflops(run) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 1e9


def test_costs_know_every_public_model():
    for path in COSTS:
        assert read_yaml(path)["models"]["unet"].keys() == real.UNETS.keys()


@pytest.mark.parametrize("name", [*TEXT_TO_IMAGE, GROUNDED])
def test_costs_of_an_evaluation_are_counted(name):
    unet = real.unet(name)  # of its own: recorded layers compute a little more
    condition = {"cross_attention_kwargs": {"gligen": boxes(1)}} if name == GROUNDED else {}
    counted = gigaflops(lambda: evaluate(unet, 1, 64, 64, **condition))
    assert costs().models.unet[name] == pytest.approx(counted, rel=1e-3)


def test_costs_of_autoencoder_and_clip_are_counted():
    autoencoder, clip, models = real.autoencoder(), real.clip_image_tower(), costs().models
    assert models.encode == pytest.approx(
        gigaflops(lambda: autoencoder.encode(empty(1, 3, 512, 512))), rel=1e-3
    )
    assert models.decode == pytest.approx(
        gigaflops(lambda: autoencoder.decode(empty(1, 4, 64, 64))), rel=1e-3
    )
    assert models.clip == pytest.approx(gigaflops(lambda: clip(empty(1, 3, 224, 224))), rel=1e-3)


@pytest.mark.parametrize("name", ["stable-diffusion", "gligen-inpainting"])
def test_costs_of_the_miniature_are_counted(name):
    folder = ROOT / "resources/miniature" / name
    small, unet = costs().small_models, UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    coder = AutoencoderKL.from_pretrained(ROOT / "resources/miniature/stable-diffusion", subfolder="vae")
    image, words = torch.zeros(1, 3, 64, 64), torch.zeros(1, 32, unet.config.cross_attention_dim)
    latent = coder.encode(image).latent_dist.mean
    noise = latent.new_zeros(1, unet.config.in_channels, *latent.shape[2:])
    whole = (512 / 64) ** 2
    assert small.unet[name] == pytest.approx(whole * gigaflops(lambda: unet(noise, 1, words)), rel=0.01)
    assert small.encode == pytest.approx(whole * gigaflops(lambda: coder.encode(image)), rel=0.01)
    assert small.decode == pytest.approx(whole * gigaflops(lambda: coder.decode(latent)), rel=0.01)


def test_costs_of_features_that_are_kept_are_counted():
    unets = {name: (real.unet(name), 8) for name in (*TEXT_TO_IMAGE, "stable-diffusion-1-5")}
    folder = ROOT / "resources/miniature/stable-diffusion"
    unets["stable-diffusion"] = (UNet2DConditionModel.from_pretrained(folder, subfolder="unet"), 4)
    known = costs().files.features
    for name, (unet, cell) in unets.items():
        numbers = sum(width / 4**level for level, width in enumerate(FeatureTaps(unet, "blocks").channels()))
        assert known[name] == pytest.approx(2 * numbers / cell**2, rel=1e-3), name
    assert known.keys() == unets.keys()
