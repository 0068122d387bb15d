"""The miniature's aesthetic predictor, trained on the CLIP and with the head that the filter uses."""

import numpy as np
import torch

from gen4det.filters.aesthetic import AestheticHead
from gen4det.filters.clip import ImageEncoder
from gen4det.miniature.aesthetic import train_aesthetic
from gen4det.miniature.foundation_job import FoundationJob


def make(job: FoundationJob) -> dict:
    """Train the predictor; facts for the record, with figures on held-out pictures."""
    encoder = ImageEncoder(str(job.inputs["clip"]), device=job.device)
    torch.manual_seed(job.settings.seed)
    head = AestheticHead(encoder.width)

    def embed(images: list[np.ndarray]) -> torch.Tensor:
        return encoder.embed(np.stack([encoder.preprocess(image) for image in images]))

    return train_aesthetic(job, head, embed)
