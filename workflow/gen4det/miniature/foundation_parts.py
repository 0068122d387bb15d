"""The parts of the miniature's foundation models: what each is made by and what it reads.

Nothing here imports torch: the Snakefile asks for it.
"""

from dataclasses import dataclass

WEIGHTS = ("diffusion_start", "inpainting_start", "inpainting_parent")
"""Settings that name a folder of weights, by whose contents a part counts."""
DETECTOR = "config/detectors/miniature_mask_rcnn.py"


@dataclass(frozen=True)
class Part:
    """One part; its result is the folder <foundation>/<part>/result."""

    module: str
    """Module with the function `make(job)`; its import closure is the code of this part."""
    settings: tuple[str, ...]
    """Names of the settings it reads; it gets no others."""
    reads: tuple[str, ...] = ()
    """Parts whose results it reads."""
    config: str | None = None
    """Config of a detector that it reads."""
    learns: bool = True
    """Whether it has losses."""


_WORLD = ("seed", "image_size")

PARTS = {
    "corpus": Part("gen4det.miniature.corpus", (*_WORLD, "corpus_images"), learns=False),
    "autoencoder": Part(
        "gen4det.miniature.autoencoder",
        (*_WORLD, "autoencoder_channels", "autoencoder_steps"),
        ("corpus",),
    ),
    "diffusion": Part(
        "gen4det.miniature.diffusion",
        (
            *_WORLD,
            "unet_channels",
            "text_width",
            "diffusion_start",
            "diffusion_steps",
            "diffusion_rate",
            "text_encoder_learns",
            "category_weights",
        ),
        ("autoencoder",),
    ),
    "inpainting": Part(
        "gen4det.miniature.inpainting",
        (
            *_WORLD,
            "unet_channels",
            "text_width",
            "inpainting_start",
            "inpainting_parent",
            "inpainting_steps",
            "inpainting_rate",
            "category_weights",
        ),
        ("diffusion",),
    ),
    "clip": Part(
        "gen4det.miniature.clip",
        (*_WORLD, "text_width", "clip_steps", "clip_quality_pairs", "clip_quality_steps"),
        ("corpus", "diffusion"),
    ),
    "aesthetic": Part(
        "gen4det.filters.miniature_aesthetic", (*_WORLD, "aesthetic_scenes", "aesthetic_steps"), ("clip",)
    ),
    "backbone": Part(
        "gen4det.detection.miniature_backbone", (*_WORLD, "backbone_steps"), ("corpus",), DETECTOR
    ),
    "judge": Part("gen4det.miniature.judge", _WORLD, ("corpus", "diffusion", "inpainting"), learns=False),
}
"""In the order of the work."""

INSTALL = Part(
    "gen4det.miniature.card",
    (*_WORLD, "corpus_images"),
    ("diffusion", "inpainting", "clip", "aesthetic", "backbone", "judge"),
    learns=False,
)
"""Copies the models to the folder that ships with the repository, with a model card."""
