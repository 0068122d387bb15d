"""From a category to a prompt, and the positions of the tokens that name the object in it."""

import logging
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from gen4det.core.errors import InputError
from gen4det.diffusion.words import context_length, spoken_name, squeeze
from gen4det.engines.mosaicfusion.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """A prompt and, as positions among its tokens (the start token is 0), those whose attention is read."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class NamedText:
    """A text; characters [start, stop) of it are the head name."""

    text: str
    start: int
    stop: int


def category_prompt(category: dict, settings: Settings, tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """Prompt of one category (section 3.2 and Table 2d).

    A prompt of more than 77 tokens is truncated, with a warning.

    Raises:
        InputError: truncation cuts into the name.
    """
    named = named_text(category, settings)
    context = context_length(tokenizer)
    ids = tokenizer(named.text).input_ids
    if settings.token == "official":
        tokens = official_token(tokenizer, category, ids)
    else:
        tokens = name_tokens(tokenizer, named)
    if len(ids) > context:
        # The last place of a truncated prompt is taken by the end token.
        if max(tokens) >= context - 1:
            raise InputError(
                f"category {category['name']!r}: its name ends at token {max(tokens) + 1} of the prompt, "
                f"but only {context - 2} tokens are read; shorten prompt or name"
            )
        log.warning("prompt of %d tokens truncated to %d: %s", len(ids), context, named.text)
    if settings.token == "phrase":
        tokens = tuple(range(tokens[0], min(len(ids), context) - 1))
    return Prompt(named.text, tokens)


def named_text(category: dict, settings: Settings) -> NamedText:
    """Fill the template; underscores become spaces, runs of white space one space.

    The head name is the name without a disambiguator in parentheses: "cap" of "cap (headwear)".
    """
    name = spoken_name(category)
    head = name.partition("(")[0].strip() or name
    before, _, after = settings.prompt.partition("{name}")
    before = squeeze(before).lstrip()
    text = before + name + squeeze(after)
    definition = squeeze(category.get("def") or "").strip()
    if settings.definition and definition:
        text = f"{text}, {definition}"
    return NamedText(text, len(before), len(before) + len(head))


def name_tokens(tokenizer: PreTrainedTokenizerBase, named: NamedText) -> tuple[int, ...]:
    """Positions of all tokens that spell the head name.

    Found by character position, so the same word elsewhere in the prompt is no matter.
    """
    spans = tokenizer(named.text, return_offsets_mapping=True).offset_mapping
    tokens = tuple(
        index
        for index, (start, stop) in enumerate(spans)
        if start < stop and start < named.stop and named.start < stop
    )
    if not tokens:
        raise InputError(f"category name {named.text[named.start : named.stop]!r}: no token spells it")
    return tokens


def official_token(tokenizer: PreTrainedTokenizerBase, category: dict, ids: list[int]) -> tuple[int, ...]:
    """The released code's choice: the last token of the name, where its id first occurs in the prompt.

    This reads a wrong word for some categories: the article "a" for "spatula" (which ends in the token "a"),
    the disambiguator for every name with parentheses.
    """
    name = spoken_name(category).replace(")", "")
    pieces = tokenizer(name, add_special_tokens=False).input_ids
    if not pieces or pieces[-1] not in ids:
        raise InputError(f"category {category['name']!r}: the last token of its name is not in the prompt")
    return (ids.index(pieces[-1]),)
