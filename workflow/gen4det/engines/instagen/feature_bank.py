"""Features of the last step of a generation, from stored latents and prompts (InstaGen, section 3.2)."""

from collections.abc import Sequence

import torch

from gen4det.core.errors import InputError
from gen4det.diffusion.class_vectors import class_vectors
from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.frozen import fingerprint
from gen4det.diffusion.pipelines import PRECISIONS, load_text_to_image
from gen4det.diffusion.replay import features_of_both
from gen4det.diffusion.settings import ModelSource
from gen4det.diffusion.text import TextStates
from gen4det.diffusion.words import spoken_name


class FeatureBank:
    """One frozen text-to-image model: no module, so that nothing that holds it trains, saves or averages it.

    Args:
        source: its folder.
        precision: arithmetic of the U-Net; features are float32.

    Raises:
        InputError: the model cannot be loaded, or is of another build than Stable Diffusion's.
    """

    def __init__(self, source: ModelSource | None, precision: str, device: str):
        self.pipeline = load_text_to_image(source, device)
        self.fingerprint = fingerprint(self.pipeline)
        self.taps = FeatureTaps(self.pipeline.unet, "layers")
        self.channels = [2 * count for count in self.taps.channels()]
        if self.pipeline.unet.dtype != PRECISIONS[precision]:
            self.pipeline.unet.to(PRECISIONS[precision])
        self.text = TextStates(self.pipeline)
        self.text_channels = self.text("").shape[-1]
        self.passes = 0
        """Evaluated images so far, with and without prompt counted as one."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pipeline.unet.device

    def __call__(self, latents: torch.Tensor, records: Sequence[dict]) -> list[torch.Tensor]:
        """Features of a batch.

        Args:
            latents: as they entered the last step.
            records: of the images; their last step is one and the same.

        Returns:
            float32 (images, `channels` of the level, height, width) for each level, the largest first.
        """
        steps = {record["last_step"] for record in records}
        if len(steps) > 1:
            raise InputError(f"instagen: images of one batch end with different time steps: {sorted(steps)}")
        states = torch.cat([self.text(record["prompt"]) for record in records])
        self.passes += len(latents)
        return features_of_both(self.taps, latents.to(self.device), steps.pop(), states, self.text(""))

    def vectors(self, categories: Sequence[dict]) -> dict[int, torch.Tensor]:
        """Class vectors by category id, on the CPU."""
        found = class_vectors(self.text, [spoken_name(it) for it in categories]).cpu()
        return {category["id"]: vector for category, vector in zip(categories, found, strict=True)}


def texts_of(records: Sequence[dict], vectors: dict[int, torch.Tensor]) -> torch.Tensor:
    """Class vectors of a batch, float32 (images, most categories of an image, channels), zeros as padding."""
    most = max(len(record["categories"]) for record in records)
    width = len(next(iter(vectors.values())))
    text = torch.zeros(len(records), most, width)
    for row, record in enumerate(records):
        for slot, category in enumerate(record["categories"]):
            text[row, slot] = vectors[category]
    return text
