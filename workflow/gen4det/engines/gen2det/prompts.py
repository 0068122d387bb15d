"""From categories to prompts, and the names that no model can have learnt to draw."""

import logging
from collections import Counter
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from gen4det.diffusion.words import context_length, spoken_name

KNOWN_LETTERS = 4
"""A word counts as known if one token spells this many of its letters, or more than half of them."""

log = logging.getLogger(__name__)


def prompt_of(names: Iterable[str], template: str) -> str:
    """Fill the template with the names, each once, in order of appearance."""
    return template.replace("{names}", ", ".join(dict.fromkeys(names)))


def phrases_of(objects: Iterable[dict]) -> list[str]:
    """Phrases of the painted objects of a row, each once, in order of appearance."""
    return list(dict.fromkeys(entry["phrase"] for entry in objects if entry["role"] == "painted"))


def fit_prompts(rows: list[dict], template: str, tokenizer: PreTrainedTokenizerBase) -> list[dict]:
    """Shorten prompts that the text encoder would cut: whole phrases go, from the end, the first one stays.

    Their boxes are painted all the same: the model is told each box's phrase by itself. One warning says how
    many prompts lost how many phrases. Rows whose prompts fit stay as they are.
    """
    window = context_length(tokenizer) - 2  # start and end are read, too

    def fits(prompt: str) -> bool:
        return len(tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids) <= window

    shortened: dict[int, str | None] = {}
    dropped = painted = 0
    for row in rows:
        reference = row["reference_image_id"]
        if reference in shortened:
            continue
        shortened[reference] = None
        if fits(row["prompt"]):
            continue
        phrases = phrases_of(row["objects"])
        kept = list(phrases)
        while len(kept) > 1 and not fits(prompt_of(kept, template)):
            kept.pop()
        if len(kept) < len(phrases):
            shortened[reference] = prompt_of(kept, template)
            dropped, painted = dropped + len(phrases) - len(kept), painted + len(phrases)
    changed = sum(prompt is not None for prompt in shortened.values())
    if changed:
        log.warning(
            "gen2det: the prompts of %d of %d real images are longer than the %d tokens that the text "
            "encoder reads: %d of their %d phrases are left out, from the end; every box keeps its own",
            changed, len(shortened), window, dropped, painted,
        )  # fmt: skip
    return [row | {"prompt": shortened[row["reference_image_id"]] or row["prompt"]} for row in rows]


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
