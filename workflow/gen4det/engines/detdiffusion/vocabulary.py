"""New words of a text encoder: locations and attributes."""

import torch
from diffusers import StableDiffusionPipeline

from gen4det.engines.detdiffusion.settings import WordSettings
from gen4det.engines.detdiffusion.words import (
    ATTRIBUTES,
    known_locations,
    location_vectors,
    location_words,
    require_grid,
)


def extend_vocabulary(
    pipeline: StableDiffusionPipeline, words: WordSettings, *, attributes: bool
) -> list[str]:
    """Add the words that a pipeline lacks to its tokenizer and its text encoder.

    Vectors of old words keep their bytes. Locations begin as `location_vectors`, an attribute as the mean
    of what its plain word was spelled with. A pipeline that has locations already must have this very grid.

    Args:
        attributes: whether prompts have attributes.

    Returns:
        The words that were added.

    Raises:
        InputError: locations of another grid, or vectors of a width that is not a multiple of 4.
    """
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    vectors: dict[str, torch.Tensor] = {}
    if known_locations(tokenizer):
        require_grid(tokenizer, words, where="the model to start from")
    else:
        table = torch.from_numpy(location_vectors(words, encoder.config.hidden_size))
        vectors = dict(zip(location_words(words), table, strict=True))
    if attributes and words.attributes == "new":
        old = encoder.get_input_embeddings().weight.detach()
        for name, word in ATTRIBUTES.items():
            if word not in tokenizer.get_added_vocab():
                spelled = tokenizer(name, add_special_tokens=False).input_ids
                vectors[word] = old[spelled].mean(0).cpu()
    if not vectors:
        return []
    tokenizer.add_tokens(list(vectors))
    # By default transformers draws new rows from the old rows' covariance: minutes of one core, and thrown
    # away here.
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(vectors)))
        table[ids.to(table.device)] = torch.stack(list(vectors.values())).to(table)
    table.requires_grad_(False)
    return list(vectors)
