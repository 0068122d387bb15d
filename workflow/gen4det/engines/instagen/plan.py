"""What to draw: prompts that name one or two categories (InstaGen, arXiv 2402.05937, section 3.1)."""

import logging

import numpy as np
from transformers import PreTrainedTokenizerBase

from gen4det.core.errors import InputError
from gen4det.core.provenance import seed_for
from gen4det.diffusion.sources import latent_cell, load_tokenizer
from gen4det.diffusion.words import caption_of, context_length, spoken_name, squeeze
from gen4det.engines import base
from gen4det.engines.instagen.settings import Settings
from gen4det.engines.instagen.vocabulary import Vocabulary, vocabulary

log = logging.getLogger(__name__)


class Planner(base.Planner):
    """Prompts of base and of novel categories. Reads names alone, no image and no label."""

    settings: Settings

    def plan(self) -> list[dict]:
        """See `plan_manifest`."""
        cell = latent_cell(self.foundation.diffusion)
        if self.settings.size % cell:
            raise InputError(
                f"instagen: size: {self.settings.size} px is not a multiple of this model's {cell} px"
            )
        words = vocabulary(self.dataset, self.settings.vocabulary)
        rows = plan_manifest(self.dataset.categories, words, self.settings, self.run_seed)
        require_readable(rows, self.dataset.categories, load_tokenizer(self.foundation.diffusion))
        return rows


def plan_manifest(categories: list[dict], words: Vocabulary, settings: Settings, run_seed: int) -> list[dict]:
    """Manifest of the whole set: base categories first, then novel ones.

    The first images of all categories stand before the second ones, so that a batch shows many categories.

    Returns:
        Rows {"index", "batch", "seed", "set": "base" or "novel", "number": which image of its category, from
        0, "categories": ids in the order of the prompt, its own first, "annotated_category_ids": those of
        them that somebody labels, sorted, "prompt", "side": of the image in pixels}.
    """
    names = {category["id"]: prompted_name(category, settings.images.definition) for category in categories}
    asked = settings.images
    seconds = {"base": words.base, "novel": words.base + words.novel}
    if asked.second_of_novel == "all":
        seconds["novel"] = words.every
    parts = (
        ("base", words.base, asked.base_per_category),
        ("novel", words.novel, asked.novel_per_category),
    )
    rows = []
    for kind, own, count in parts:
        first_batch = rows[-1]["batch"] + 1 if rows else 0
        entries = [(number, category) for number in range(count) for category in own]
        for place, (number, category) in enumerate(entries):
            rng = np.random.default_rng(seed_for(run_seed, settings.method, kind, category, number, "prompt"))
            others = [it for it in seconds[kind] if it != category]
            chosen = [category]
            if others and rng.random() < asked.pairs:
                chosen.append(others[rng.integers(len(others))])
            rows.append({
                "index": len(rows),
                "batch": first_batch + place // asked.batch_size,
                "seed": seed_for(run_seed, settings.method, kind, category, number),
                "set": kind,
                "number": number,
                "categories": chosen,
                "annotated_category_ids": sorted(set(chosen) & words.known),
                "prompt": caption_of([names[it] for it in chosen], settings.prompt),
                "side": settings.size,
            })  # fmt: skip
    return rows


def prompted_name(category: dict, definition: bool) -> str:
    """A category's name as words, with its definition in parentheses if it has one and that is asked for."""
    name, meaning = spoken_name(category), category.get("def")
    return f"{name} ({squeeze(meaning).strip()})" if definition and meaning else name


def require_readable(rows: list[dict], categories: list[dict], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse prompts that end before their last name; warn of others that are cut.

    Raises:
        InputError: names the first category whose name is not read.
    """
    context = context_length(tokenizer)
    names = {category["id"]: spoken_name(category) for category in categories}
    cut = 0
    for prompt, row in {row["prompt"]: row for row in rows}.items():
        if len(tokenizer(prompt).input_ids) <= context:
            continue
        cut += 1
        end = 0
        for name in (names[category] for category in row["categories"]):
            end = prompt.index(name, end) + len(name)
            if len(tokenizer(prompt[:end]).input_ids) > context:
                raise InputError(
                    f"instagen: category {name!r}: its name ends beyond the {context - 2} tokens of a prompt "
                    f"that are read; shorten it: {prompt[:80]}"
                )
    if cut:
        log.warning("%d prompts are longer than the %d tokens that are read, and are cut", cut, context)
