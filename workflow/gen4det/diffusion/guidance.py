"""The noise that a U-Net predicts with classifier-free guidance (Ho and Salimans, arXiv 2207.12598)."""

import contextlib
from collections.abc import Callable

import torch
from diffusers import UNet2DConditionModel

Grounding = dict[str, torch.Tensor]
"""Condition of a grounded U-Net: "boxes" (images, boxes, 4) as relative [x0, y0, x1, y1],
"positive_embeddings" (images, boxes, channels) of their phrases, "masks" (images, boxes), 1 where there is
a box."""

Watch = Callable[[slice], contextlib.AbstractContextManager]
"""Opens a context for the evaluation that sees the prompt, given the rows of the U-Net's batch that do."""


def guided_noise(
    unet: UNet2DConditionModel,
    inputs: torch.Tensor,
    t: torch.Tensor | int,
    text: torch.Tensor,
    negative_text: torch.Tensor,
    guidance: float | torch.Tensor,
    *,
    boxes: Grounding | None = None,
    low_memory: bool = False,
    watch: Watch | None = None,
) -> torch.Tensor:
    """negative + guidance * (prompted - negative), of two predictions of the U-Net.

    Args:
        inputs: float (images, channels, height, width), scaled as the scheduler wants it.
        text: float (images, tokens, channels), the text encoder's states of each image's prompt.
        negative_text: float (1, tokens, channels), of what guidance leads away from, e.g. the empty prompt.
        guidance: one for all images, or float (images, 1, 1, 1). 1 is none; the U-Net is evaluated twice all
            the same.
        boxes: for a grounded U-Net; without prompt, null boxes take their place. None: the gated layers are
            passed by.
        low_memory: two evaluations of half the batch.
        watch: who looks at the evaluation with prompt: attention, features.

    Returns:
        float32 (images, the U-Net's output channels, height, width), whatever the precision of the U-Net.
    """
    images = len(inputs)
    watch = watch or (lambda rows: contextlib.nullcontext())
    inputs, text = inputs.to(unet.dtype), text.to(unet.dtype)
    negative = negative_text.to(unet.dtype).expand(images, -1, -1)
    null = None if boxes is None else {**boxes, "masks": torch.zeros_like(boxes["masks"])}
    if low_memory:
        without = _predict(unet, inputs, t, negative, null)
        with watch(slice(None)):
            prompted = _predict(unet, inputs, t, text, boxes)
    else:
        both = None if boxes is None else {name: torch.cat([null[name], boxes[name]]) for name in boxes}
        with watch(slice(images, None)):
            doubled = _predict(unet, inputs.repeat(2, 1, 1, 1), t, torch.cat([negative, text]), both)
        without, prompted = doubled.chunk(2)
    return without + guidance * (prompted - without)


def _predict(
    unet: UNet2DConditionModel,
    inputs: torch.Tensor,
    t: torch.Tensor | int,
    text: torch.Tensor,
    boxes: Grounding | None,
) -> torch.Tensor:
    condition = {} if boxes is None else {"cross_attention_kwargs": {"gligen": boxes}}
    return unet(inputs, t, encoder_hidden_states=text, return_dict=False, **condition)[0].float()
