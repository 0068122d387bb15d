"""A tiny diffusion model with distinct widths, and detectors on it, a size smaller than the miniature's."""

from pathlib import Path

import torch
from tiny_detector import tiny_dataset

from gen4det.detection.detectors import build_model, fit_diffusion, load_config
from gen4det.detection.settings import DetectorSettings, TrainSettings
from gen4det.detection.training import train
from gen4det.detection.weights import save_weights
from gen4det.diffusion.settings import ModelSource
from tiny_models import tiny_pipeline, tiny_unet

CONFIGS = Path(__file__).parents[2] / "config" / "detectors"
WIDTHS = (32, 64, 96, 128)  # distinct widths make channel mistakes visible


def save_model(folder: Path, seed: int = 0) -> Path:
    """A text-to-image pipeline in diffusers' layout; another seed gives other weights."""
    pipeline = tiny_pipeline(layers=1)
    unet = tiny_unet(layers_per_block=1, block_out_channels=WIDTHS)
    torch.manual_seed(seed)
    for parameter in unet.parameters():
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    # Beside a variance of 1, and noise of 0.04, a latent's mean of random weights, the picture, disappears.
    means = slice(pipeline.vae.config.latent_channels)
    pipeline.vae.quant_conv.weight.data[means] *= 30
    pipeline.vae.quant_conv.bias.data[means.stop :] = -10
    pipeline.register_modules(unet=unet)
    pipeline.save_pretrained(folder)
    return folder


def config_file(folder: Path, kind: str) -> str:
    """The miniature's config, a size smaller still."""
    base = CONFIGS / f"miniature_diffusion_{kind}.py"
    text = f"_base_ = {str(base)!r}\nbatch_size = 2\nmax_iters = 6\n"
    if kind == "dino":
        text += """
model = dict(
    num_queries=20,
    num_feature_levels=5,
    neck=dict(num_outs=5),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=dict(num_levels=5))),
    decoder=dict(num_layers=2, layer_cfg=dict(cross_attn_cfg=dict(num_levels=5))),
    data_preprocessor=dict(pad_size_divisor=8),
)
"""
    else:
        text += """
model = dict(
    data_preprocessor=dict(pad_size_divisor=8),
    neck=dict(num_outs=4),
    rpn_head=dict(anchor_generator=dict(scales=[2], strides=[8, 16, 32, 64])),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=[8, 16, 32])),
)
"""
    path = folder / f"tiny_{kind}.py"
    path.write_text(text)
    return str(path)


def save_adapter(path: Path, model: Path, categories: list[dict], kind: str = "faster_rcnn") -> Path:
    """A tiny adapter as it is before its first iteration."""
    return untrained(path, config_file(path.parent, kind), str(model), categories)


def untrained(path: Path, file: str, model: str, categories: list[dict]) -> Path:
    """A detector on a diffusion model as it is before its first iteration.

    Args:
        path: weights.safetensors.
        file: its config.
        model: folder of the diffusion model.
    """
    config = load_config(file, classes=len(categories))
    fit_diffusion(config.model, ModelSource(path=model), config=file)
    torch.manual_seed(0)
    built = build_model(config.model.to_dict())
    built.init_weights()
    save_weights(
        path,
        built.state_dict(),
        model=config.model.to_dict(),
        test_pipeline=config.test_pipeline,
        categories=categories,
    )
    return path


class World:
    """A data set, a diffusion model, and trainings with them."""

    def __init__(self, place: Path, model: Path):
        self.place, self.model = place, model
        self.dataset = tiny_dataset(place / "data")

    def settings(self, kind: str, **more) -> TrainSettings:
        detector = {"config": config_file(self.place, kind), "diffusion": {"path": str(self.model)}}
        return TrainSettings(detector=DetectorSettings(**{**detector, **more}))

    def train(self, kind: str, run: str, **options):
        output = self.place / f"{run}-{kind}" / "weights.safetensors"
        settings = options.pop("settings", None) or self.settings(kind)
        return train(settings, self.dataset, [], output, fingerprint={"settings": kind}, **options), output
