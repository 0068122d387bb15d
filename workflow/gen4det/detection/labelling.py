"""Boxes from a U-Net's features: a detector on a frozen diffusion model labels what the model has just drawn.

The features of a generation's last step, of the half that sees the prompt, are what the detector's backbone
would have made of the finished image (DiffusionEngine, section 3.3): no second pass, no pixels.
"""

from collections.abc import Sequence

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from gen4det.core.errors import InputError
from gen4det.detection.inference import detections_of
from gen4det.detection.weights import Detector


@torch.inference_mode()
def detect_in_features(detector: Detector, features: Sequence[Tensor]) -> list[list[dict]]:
    """Detections in images of which only the features are known.

    Args:
        detector: one with a FrozenDiffusion backbone of the model that the features come from.
        features: float32 (images, channels, height, width) for each level, the largest first, as
            `FeatureTaps(unet, "blocks")` gives them. The images are whole: their sides are those of the first
            level times the side of a latent cell.

    Returns:
        For each image its detections, best first: {"image_id": its place in the batch, "category_id",
        "bbox" [x, y, width, height] in pixels, "score" in [0, 1]}.

    Raises:
        InputError: a detector on another backbone, or features of another model.
    """
    backbone = detector.model.backbone
    if not hasattr(backbone, "given"):
        raise InputError(f"detector on {type(backbone).__name__}: expected one on a FrozenDiffusion backbone")
    found, expected = [level.shape[1] for level in features], backbone.features.channels
    if found != expected:
        raise InputError(f"features of {found} channels: the detector's model has {expected}")
    images, (rows, columns) = len(features[0]), features[0].shape[-2:]
    size = rows * backbone.features.cell, columns * backbone.features.cell
    about = {"img_shape": size, "ori_shape": size, "batch_input_shape": size, "pad_shape": size}
    samples = [
        DetDataSample(metainfo={"img_id": number, "scale_factor": (1.0, 1.0), **about})
        for number in range(images)
    ]
    pixels = features[0].new_zeros(1).expand(images, 3, *size)  # nobody looks at them
    with backbone.given(features):
        detected = detector.model.predict(pixels, samples)
    ids = [category["id"] for category in detector.categories]
    return [list(detections_of(sample, ids, masks=False)) for sample in detected]
