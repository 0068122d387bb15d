"""Category names as words of a prompt, and how many tokens of it are read. Nothing here imports torch."""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

CLIP_CONTEXT = 77
"""Tokens that CLIP's text encoder sees, the two that mark start and end included."""


def spoken_name(category: dict) -> str:
    """A category's name as words: underscores become spaces."""
    return squeeze(category["name"].replace("_", " ")).strip()


def squeeze(text: str) -> str:
    """Each run of white space becomes one space."""
    return re.sub(r"\s+", " ", text)


def context_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of a prompt that are read, start and end included; the rest is cut off."""
    return min(tokenizer.model_max_length, CLIP_CONTEXT)


def caption_of(names: Sequence[str], template: str = "a photograph of {}", joint: str = " and ") -> str:
    """A caption that names categories, each once, in the given order."""
    return template.format(joint.join(dict.fromkeys(names)))
