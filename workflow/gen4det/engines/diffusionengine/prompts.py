"""Prompts of references: their captions, or their categories, or the domain alone."""

from collections.abc import Sequence

import numpy as np

from gen4det.diffusion.words import squeeze
from gen4det.engines.diffusionengine.settings import PromptSettings


def prompt_of(
    captions: Sequence[str], names: Sequence[str], settings: PromptSettings, rng: np.random.Generator
) -> str:
    """The prompt that one reference is redrawn under (section 3.3; the released code's data mapper).

    Args:
        captions: of the image; may be empty.
        names: of its categories, each once; may be empty.
        rng: chooses the caption, or the categories and their order.
    """
    words = {"domain": settings.domain, "style": settings.style}
    captions = [caption for caption in map(plain_caption, captions) if caption] if settings.captions else []
    if captions:
        prompt = settings.caption.format(caption=captions[rng.integers(len(captions))], **words)
    elif names:
        chosen = rng.permutation(len(names))[: settings.max_classes]
        prompt = settings.classes.format(names=", ".join(names[i] for i in chosen), **words)
    else:
        prompt = settings.nothing.format(**words)
    if settings.lower_case:
        prompt = prompt.lower()
    return f"{prompt}, {settings.suffix}" if settings.suffix else prompt


def plain_caption(text: str) -> str:
    """A caption on one line, without the full stop at its end."""
    return squeeze(text).strip().removesuffix(".").rstrip()
