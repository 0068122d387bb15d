"""Paint the boxes of real images anew, each after a phrase, all in one pass (GLIGEN, arXiv 2301.07093).

A loop of our own over diffusers' parts. Of diffusers' StableDiffusionGLIGENPipeline, which takes the same
weights, it leaves behind: the crop to a square, a mask that is right for squares only, boxes beyond the
thirtieth dropped in silence, one layout per call, noise from the global generator. Images of one size are
painted together, whatever their boxes.

Conventions of the weights: the U-Net reads latents (4 channels), the known latents with the boxes blanked
(4) and the mask (1), which is 1 where the image is kept and 0 where it is painted.
"""

from collections.abc import Sequence

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel

from gen4det.diffusion.guidance import Grounding, guided_noise
from gen4det.diffusion.latent_boxes import Box, relative_corners
from gen4det.diffusion.noise import draw_noise
from gen4det.diffusion.schedulers import step_options

MAX_BOXES = 30
"""Boxes of an image that the weights were trained with; fewer are filled up with null boxes."""


def grounding(
    boxes: Sequence[Sequence[Box]],
    phrases: Sequence[Sequence[torch.Tensor]],
    images: Sequence[tuple[int, int]],
    device: str | torch.device = "cpu",
) -> Grounding:
    """Condition of a batch: every image has room for MAX_BOXES.

    Args:
        boxes: of each image, at most MAX_BOXES.
        phrases: for each of these boxes its phrase's vector, float (1, channels): `TextStates.pooled`.
        images: (height, width) of each image in pixels.
    """
    channels = phrases[0][0].shape[-1]
    condition = {
        "boxes": torch.zeros(len(boxes), MAX_BOXES, 4),
        "positive_embeddings": torch.zeros(len(boxes), MAX_BOXES, channels),
        "masks": torch.zeros(len(boxes), MAX_BOXES),
    }
    for i, (members, vectors, size) in enumerate(zip(boxes, phrases, images, strict=True)):
        count = len(members)
        if not 1 <= count <= MAX_BOXES:
            raise ValueError(f"{count} boxes; an image is grounded by 1 to {MAX_BOXES}")
        condition["boxes"][i, :count] = torch.tensor([relative_corners(box, size) for box in members])
        condition["positive_embeddings"][i, :count] = torch.cat(list(vectors)).float().cpu()
        condition["masks"][i, :count] = 1
    return {name: values.to(device) for name, values in condition.items()}


# --- the loop -------------------------------------------------------------------------------------


def inpaint(
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin,
    noise: torch.Tensor,
    known: torch.Tensor,
    mask: torch.Tensor,
    text: torch.Tensor,
    negative_text: torch.Tensor,
    boxes: Grounding,
    *,
    steps: int,
    guidance: float,
    scheduled_sampling: float = 1.0,
    low_memory: bool = False,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Paint a batch of images of one size.

    Before each step the kept part is set to the real image at that step's noise, drawn anew; after the last
    step it is not, so that it differs a little from the image.

    Args:
        scheduler: not yet used; multistep samplers keep the state of this batch.
        noise: standard normal float32 (images, channels, height, width) in latent cells.
        known: latents of the real images, of the shape of `noise`.
        mask: float32 (images, 1, height, width); see `latent_mask`.
        text: float (images, tokens, channels), the text encoder's states of each image's prompt.
        negative_text: float (1, tokens, channels), of what guidance leads away from: the empty prompt.
        boxes: see `grounding`. Without prompt, null boxes take their place.
        guidance: weight g of classifier-free guidance: negative + g * (text - negative).
        scheduled_sampling: share of the steps, from the first on, in which the U-Net sees the boxes.
        low_memory: two U-Net calls per step, of half the batch.
        generators: one random stream per image.

    Returns:
        Latents, float32, of the shape of `noise`.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    options = step_options(scheduler, generators)
    condition = {name: values.to(unet.dtype) for name, values in boxes.items()}
    grounded = int(scheduled_sampling * len(scheduler.timesteps))
    latents = noise * scheduler.init_noise_sigma
    for number, t in enumerate(scheduler.timesteps):
        fresh = draw_noise(generators, tuple(noise.shape[1:]), noise.device)
        latents = scheduler.add_noise(known, fresh, t.reshape(1)) * mask + latents * (1 - mask)
        predicted = guided_noise(
            unet,
            torch.cat([scheduler.scale_model_input(latents, t), known * mask, mask], dim=1),
            t,
            text,
            negative_text,
            guidance,
            boxes=condition if number < grounded else None,
            low_memory=low_memory,
        )
        latents = scheduler.step(predicted, t, latents, **options).prev_sample
    return latents
