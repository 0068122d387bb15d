"""Where the pretrained models come from."""

from gen4det.settings import Settings


class ModelSource(Settings):
    """One pretrained model in the file format of diffusers or transformers."""

    path: str
    """A folder, or a model id on the Hugging Face hub ("owner/name")."""
    revision: str | None = None
    """Commit hash on the hub. Required for hub ids, so that the same settings name the same weights."""


class FoundationSettings(Settings):
    """The pretrained models that engines and filters start from; only what is used needs to be given."""

    diffusion: ModelSource | None = None
    """Text-to-image pipeline with the layout of StableDiffusionPipeline."""
    inpainting: ModelSource | None = None
    """Grounded inpainting pipeline (9-channel U-Net, boxes as condition)."""
    clip: ModelSource | None = None
    """CLIP text and image encoder."""
