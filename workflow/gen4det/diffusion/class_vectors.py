"""Vectors of categories from a text-to-image model's own text encoder (InstaGen, section 3.3)."""

from collections.abc import Sequence

import torch

from gen4det.core.errors import InputError
from gen4det.diffusion.text import TextStates
from gen4det.diffusion.words import context_length

TEMPLATE = "a photograph of a {}"


def class_vectors(text: TextStates, names: Sequence[str], template: str = TEMPLATE) -> torch.Tensor:
    """Mean of the text encoder's last states at the tokens of each name, in a sentence of its own.

    Not normalised, as in the released code: the norms of Stable Diffusion's are 22 to 30.

    Args:
        names: as words.
        template: {} is where the name goes.

    Returns:
        float (names, channels).

    Raises:
        InputError: a name without a token, or one that is longer than what the encoder reads.
    """
    before = template.partition("{}")[0]
    start = len(text.tokenizer(before).input_ids) - 1  # without the end token
    vectors = []
    for name in names:
        stop = start + len(text.tokenizer(name).input_ids) - 2
        if stop == start:
            raise InputError(f"category {name!r}: its name has no word")
        if stop > context_length(text.tokenizer) - 1:
            raise InputError(
                f"category {name!r}: its name is of {stop - start} tokens, of which the text encoder reads "
                f"{context_length(text.tokenizer) - 1 - start}; shorten it"
            )
        vectors.append(text(template.format(name))[0, start:stop].mean(0))
    return torch.stack(vectors)
