"""Prompts to the text encoder's states."""

import torch
from diffusers import StableDiffusionPipeline
from transformers import PreTrainedTokenizerBase

CLIP_CONTEXT = 77
"""Tokens that CLIP's text encoder sees, the two that mark start and end included."""


def context_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of a prompt that are read, start and end included; the rest is cut off."""
    return min(tokenizer.model_max_length, CLIP_CONTEXT)


class TextStates:
    """Last hidden states of prompts, each encoded once.

    Prompts are encoded one at a time, so that the result does not depend, in the last bit, on which prompts
    happen to be needed together.
    """

    def __init__(self, pipeline: StableDiffusionPipeline):
        self.tokenizer = pipeline.tokenizer
        self.encoder = pipeline.text_encoder
        self._states: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, prompt: str) -> torch.Tensor:
        """States of one prompt, float (1, tokens, channels), padded or cut to the context length."""
        if prompt not in self._states:
            ids = self.tokenizer(
                prompt,
                padding="max_length",
                max_length=context_length(self.tokenizer),
                truncation=True,
                return_tensors="pt",
            ).input_ids
            self._states[prompt] = self.encoder(ids.to(self.encoder.device))[0]
        return self._states[prompt]
