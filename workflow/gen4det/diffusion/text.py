"""Prompts to the text encoder's states."""

import torch
from diffusers import StableDiffusionPipeline

from gen4det.diffusion.words import context_length


class TextStates:
    """What the text encoder makes of prompts, each encoded once.

    Prompts are encoded one at a time, so that the result does not depend, in the last bit, on which prompts
    happen to be needed together.

    Args:
        keep: prompts whose states are remembered, the latest ones; those of one prompt take 0.2 MB in Stable
            Diffusion.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, keep: int = 2048):
        self.tokenizer = pipeline.tokenizer
        self.encoder = pipeline.text_encoder
        self.keep = keep
        self._states: dict[str, torch.Tensor] = {}
        self._pooled: dict[str, torch.Tensor] = {}

    def __call__(self, prompt: str) -> torch.Tensor:
        """States of one prompt, float (1, tokens, channels), padded or cut to the context length."""
        if prompt not in self._states:
            if len(self._states) >= self.keep:
                del self._states[next(iter(self._states))]
            self._states[prompt] = self._encode(prompt).last_hidden_state
        return self._states[prompt]

    def pooled(self, phrase: str) -> torch.Tensor:
        """One vector for a phrase: the state at its end token, float (1, channels)."""
        if phrase not in self._pooled:
            self._pooled[phrase] = self._encode(phrase).pooler_output
        return self._pooled[phrase]

    @torch.no_grad()
    def _encode(self, text: str):
        ids = self.tokenizer(
            text,
            padding="max_length",
            max_length=context_length(self.tokenizer),
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return self.encoder(ids.to(self.encoder.device))
