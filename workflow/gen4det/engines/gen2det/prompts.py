"""From categories to prompts, and the names that no model can have learnt to draw."""

import logging
from collections import Counter
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from gen4det.diffusion.words import spoken_name

KNOWN_LETTERS = 4
"""A word counts as known if one token spells this many of its letters, or more than half of them."""

log = logging.getLogger(__name__)


def prompt_of(names: Iterable[str], template: str) -> str:
    """Fill the template with the names, each once, in order of appearance."""
    return template.replace("{names}", ", ".join(dict.fromkeys(names)))


def warn_of_unknown_names(categories: Iterable[dict], tokenizer: PreTrainedTokenizerBase) -> None:
    """One warning that lists the categories none of whose words is in the model's vocabulary.

    The tokenizer still accepts them: it spells them out in bytes or pairs of letters, which mean nothing to
    the text encoder. They are painted all the same; most will not show the object.
    """
    names = [category["name"] for category in categories if not _knows(tokenizer, spoken_name(category))]
    if names:
        listed = ", ".join(repr(name) for name in names)
        log.warning("gen2det: no word of these category names is in the model's vocabulary: %s", listed)


def _knows(tokenizer: PreTrainedTokenizerBase, name: str) -> bool:
    return any(_spells(tokenizer, word) for word in name.split())


def _spells(tokenizer: PreTrainedTokenizerBase, word: str) -> bool:
    spans = tokenizer(word, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    # A letter that falls apart into bytes is claimed by each of them as a whole.
    letters = [stop - start for (start, stop), tokens in Counter(map(tuple, spans)).items() if tokens == 1]
    longest = max(letters, default=0)
    return longest >= KNOWN_LETTERS or longest > len(word) / 2
