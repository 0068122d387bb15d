"""How the miniature's foundation models are trained; the defaults suit a CPU.

Apart from the settings of the miniature's data sets, so that a rendered data set does not depend on these.
"""

from typing import Annotated

from pydantic import Field, model_validator

from gen4det.core.settings import Settings


class FoundationTraining(Settings):
    """Sizes and budgets; on a GPU take 128 pixels, a fourth autoencoder level and ten times the steps."""

    folder: str = "results/foundation"
    """Folder of all that the training makes. It lies apart from the miniature's results: days of work outlive
    `make clean`, and go on in another checkout that it is copied to."""
    seed: int = 2026
    """Seed of the world and of the initial weights."""
    image_size: int = 64
    """Side of the corpus images in pixels (128 on a GPU)."""
    corpus_images: int = 28_000
    """Captioned images rendered for training."""
    autoencoder_channels: tuple[int, ...] = (16, 32, 64)
    """Width per level; the autoencoder shrinks by 2 ** (levels - 1)."""
    autoencoder_steps: int = 1_900
    """Optimiser steps of the autoencoder at batch 16."""
    unet_channels: tuple[int, ...] = (48, 96, 112)
    """Width per level of both U-Nets."""
    text_width: int = 96
    """Width of the text encoder and of the cross-attention."""
    diffusion_start: str | None = None
    """Pipeline folder whose U-Net and text encoder training goes on from; none: from random weights. Name a
    copy: `install_foundation` replaces resources/miniature, and other weights there are another training."""
    diffusion_steps: Annotated[int, Field(ge=1)] = 3_600
    """Optimiser steps of the text-conditional U-Net at batch 32, every picture rendered anew."""
    diffusion_rate: Annotated[float, Field(gt=0)] = 1.5e-3
    """Its learning rate: constant for two thirds of the steps, then falling to zero. 6e-4 to go on."""
    text_encoder_learns: bool = True
    """Whether the text encoder learns along with the U-Net, or stays what `diffusion_start` has."""
    category_weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """How often categories are shown to both U-Nets, relative to the others' 1, by name."""
    inpainting_start: str | None = None
    """Pipeline folder whose grounded inpainting U-Net training goes on from, a copy as above; none: the
    text-conditional one with new gates."""
    inpainting_parent: str | None = None
    """Pipeline folder of the text-conditional U-Net that `inpainting_start` once began from: what the present
    one has learned since is added to the weights to start from."""
    inpainting_steps: Annotated[int, Field(ge=1)] = 2_000
    """Optimiser steps of the grounded inpainting U-Net, at batch 16 on windows and 8 on whole scenes, all
    rendered anew."""
    inpainting_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Its learning rate, with the same course. 5e-4 to go on."""
    clip_steps: int = 500
    """Optimiser steps of the CLIP image tower at batch 64."""
    clip_quality_pairs: int = 2_400
    """Pictures, as rendered and spoilt, from which the image tower learns what is wrong with a picture."""
    clip_quality_steps: int = 600
    """Optimiser steps of that lesson at 24 pairs."""
    aesthetic_scenes: int = 2_000
    """Pictures rendered for the aesthetic predictor; each is seen as rendered and spoilt."""
    aesthetic_steps: int = 1_500
    """Optimiser steps of the aesthetic predictor at batch 256."""
    backbone_steps: int = 600
    """Optimiser steps of the detector's backbone at batch 64."""

    @model_validator(mode="after")
    def _starts_from_something(self) -> "FoundationTraining":
        if self.diffusion_start is None and not self.text_encoder_learns:
            raise ValueError(
                "text_encoder_learns: false needs a diffusion_start to take the text encoder from"
            )
        return self
