"""Training samples of the generator: an image, its prompt, weights of its cells, masks of its objects."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from gen4det.data.images import ImageStore
from gen4det.data.masks import rle_to_mask, segmentation_to_rle
from gen4det.diffusion.latent_boxes import relative_corners
from gen4det.diffusion.words import context_length
from gen4det.engines.detdiffusion.layouts import Layout, mirror
from gen4det.engines.detdiffusion.perception import Targets
from gen4det.engines.detdiffusion.posteriors import Key
from gen4det.engines.detdiffusion.reweighting import foreground_weights
from gen4det.engines.detdiffusion.settings import GeneratorSettings, WordSettings
from gen4det.engines.detdiffusion.words import fitting


@dataclass(frozen=True)
class Sample:
    """One image as the generator learns from it."""

    key: Key
    pixels: np.ndarray | None
    """uint8 (height, width, 3); None where they are known, see `Samples`."""
    prompt: str
    weights: np.ndarray
    """float32 (cells), see `foreground_weights`; all ones without re-weighting."""
    masks: dict[int, np.ndarray]
    """bool (cells) by place among the classes."""


class Samples:
    """Samples of layouts; each a function of the layout and a random stream.

    Args:
        layouts: of the training images.
        images: where those lie.
        classes: category ids in the order of the head's classes.
        size: (height, width) in pixels that images are scaled to, without regard to their aspect.
        cells: (height, width) of the latents.
        known: images that are not read, because their latents are kept.
        keep_masks: whether masks in latent cells are computed once for each layout and kept.
    """

    def __init__(
        self,
        layouts: Sequence[Layout],
        images: ImageStore,
        classes: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        words: WordSettings,
        settings: GeneratorSettings,
        size: tuple[int, int],
        cells: tuple[int, int],
        *,
        known: Container[Key] = (),
        keep_masks: bool = False,
    ):
        self.layouts, self.images, self.tokenizer = layouts, images, tokenizer
        self.words, self.settings, self.size, self.cells = words, settings, size, cells
        self.known, self.keep_masks = known, keep_masks
        self._kept_masks: dict[int, dict[int, np.ndarray]] = {}
        self.place = {category: number for number, category in enumerate(classes)}

    def __call__(self, number: int, rng: np.random.Generator) -> Sample:
        """One sample.

        Mirrored or not, its objects in a random order; those that the text encoder would not read are left
        out.

        Args:
            number: of the layout.
        """
        layout, settings = self.layouts[number], self.settings
        mirrored = bool(rng.random() < settings.flip)
        key = (int(number), mirrored)
        order = rng.permutation(len(layout.objects))
        layout = replace(layout, objects=tuple(layout.objects[place] for place in order))
        masks = self._masks_of(number)
        if mirrored:
            layout = mirror(layout)
            masks = {place: mask[:, ::-1] for place, mask in masks.items()}
        text, count = fitting(layout, self.words, self.tokenizer)
        shown = layout.objects[:count]
        if settings.foreground:
            boxes = [relative_corners(it.box, (layout.height, layout.width)) for it in shown]
            weights = foreground_weights(
                boxes, self.cells, weight=settings.foreground_weight, power=settings.foreground_power
            )
        else:
            weights = np.ones(self.cells, np.float32)
        null = rng.random() < settings.null_prompts
        pixels = None if key in self.known else self._pixels(layout.file_name, mirrored)
        return Sample(key, pixels, "" if null else text, weights, masks)

    def _pixels(self, name: str, mirrored: bool) -> np.ndarray:
        pixels, (height, width) = self.images.image(name), self.size
        pixels = np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))

    def _masks_of(self, number: int) -> dict[int, np.ndarray]:
        """Masks of a layout as its image lies, kept if that was asked for; they depend on no order."""
        if number in self._kept_masks:
            return self._kept_masks[number]
        masks = self._masks(self.layouts[number])
        if self.keep_masks:
            self._kept_masks[int(number)] = masks
        return masks

    def _masks(self, layout: Layout) -> dict[int, np.ndarray]:
        """Masks in latent cells by class; what they are is the setting `perception.masks`."""
        kind, masks = self.settings.perception.masks, {}
        if not self.settings.perception.weight:
            return masks
        for member in layout.objects:
            key = 0 if kind == "foreground" else self.place[member.category_id]
            if member.segmentation is None or kind == "box":
                x, y, w, h = member.box
                mask = np.zeros((layout.height, layout.width), bool)
                mask[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))] = True
            else:
                mask = rle_to_mask(segmentation_to_rle(member.segmentation, layout.height, layout.width))
            masks[key] = masks.get(key, False) | shrunk(mask, self.cells)
        return masks


def shrunk(mask: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """A mask, bool (H, W), in latent cells: those that it covers to a half, at least the one it covers
    most."""
    scaled = Image.fromarray(mask.astype(np.float32)).resize(cells[::-1], Image.Resampling.BOX)
    covered = np.asarray(scaled)
    small = covered >= 0.5
    if not small.any() and mask.any():
        small = covered == covered.max()
        small.flat[np.flatnonzero(small)[1:]] = False
    return small


def token_ids(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> torch.Tensor:
    """int64 (prompts, context length), padded as Stable Diffusion pads."""
    length = context_length(tokenizer)
    return tokenizer(
        prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids


def targets(samples: list[Sample], cells: tuple[int, int]) -> Targets:
    """What the head should find in a batch."""
    most = max(1, max(len(sample.masks) for sample in samples))
    classes = torch.zeros(len(samples), most, dtype=torch.int64)
    masks = torch.zeros(len(samples), most, *cells)
    valid = torch.zeros(len(samples), most, dtype=torch.bool)
    for row, sample in enumerate(samples):
        for column, (key, mask) in enumerate(sorted(sample.masks.items())):
            classes[row, column], valid[row, column] = key, True
            masks[row, column] = torch.from_numpy(np.ascontiguousarray(mask))
    return Targets(classes, masks, valid)
