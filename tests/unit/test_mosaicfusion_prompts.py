"""Prompts and the tokens that name the object: acceptance check 7.

CLIP's own vocabulary cannot be downloaded here: `tiny_tokenizer` is transformers' CLIPTokenizer with merges
that split these names as CLIP's do.
"""

import logging

import pytest

from gen4det.core.errors import InputError
from gen4det.engines.mosaicfusion.prompts import category_prompt
from gen4det.engines.mosaicfusion.settings import Settings
from tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
NAMES = {
    "spatula": ["spat", "ul", "a</w>"],
    "table-tennis_table": ["table</w>", "-</w>", "tennis</w>", "table</w>"],
    "cap_(headwear)": ["cap</w>"],
    "Christmas_tree": ["christmas</w>", "tree</w>"],
}


def pieces(prompt) -> list[str]:
    ids = TOKENIZER(prompt.text).input_ids
    return TOKENIZER.convert_ids_to_tokens([ids[position] for position in prompt.tokens])


@pytest.mark.parametrize("token", ["mean", "max"])
@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_check_7_span_covers_exactly_the_head_name(name, expected, token):
    category = {"name": name, "def": f"a {name} with a spatula and a table, table-tennis table (cap)"}
    prompt = category_prompt(category, Settings(token=token), TOKENIZER)
    assert pieces(prompt) == expected
    assert prompt.tokens == tuple(range(6, 6 + len(expected)))  # start, a, photo, of, a, single


@pytest.mark.parametrize(
    ("name", "position", "piece"),
    [("spatula", 1, "a</w>"), ("table-tennis_table", 6, "table</w>"), ("cap_(headwear)", 9, "wear</w>"),
     ("Christmas_tree", 7, "tree</w>"),
     ("monitor_(computer_equipment) computer_monitor", 8, "or</w>"), ("applesauce", 7, "sauce</w>")],
)  # fmt: skip
def test_check_7_official_mode_takes_the_last_token_at_its_first_occurrence(name, position, piece):
    prompt = category_prompt(
        {"name": name, "def": "used for the table"}, Settings(token="official"), TOKENIZER
    )
    assert prompt.tokens == (position,)
    assert pieces(prompt) == [piece]


def test_phrase_mode_reads_everything_from_the_name_on():
    category = {"name": "spatula", "def": "used for fish"}
    prompt = category_prompt(category, Settings(token="phrase"), TOKENIZER)
    assert pieces(prompt) == ["spat", "ul", "a</w>", ",</w>", "used</w>", "for</w>", "fish</w>"]
    long = category_prompt({"name": "spatula", "def": "a fish " * 80}, Settings(token="phrase"), TOKENIZER)
    assert long.tokens == tuple(range(6, 76))


def test_prompt_text():
    category = {"name": "cap_(headwear)", "def": "a  tight-fitting\nheadwear "}
    assert (
        category_prompt(category, Settings(), TOKENIZER).text
        == "a photo of a single cap (headwear), a tight-fitting headwear"
    )
    assert category_prompt(category, Settings(definition=False), TOKENIZER).text == (
        "a photo of a single cap (headwear)"
    )
    assert category_prompt({"name": "cup"}, Settings(), TOKENIZER).text == "a photo of a single cup"
    named_only = category_prompt({"name": "cup"}, Settings(prompt="{name}", definition=False), TOKENIZER)
    assert (named_only.text, named_only.tokens) == ("cup", (1,))
    around = category_prompt({"name": "cup"}, Settings(prompt="  the {name}  for a fish"), TOKENIZER)
    assert (around.text, pieces(around)) == ("the cup for a fish", ["cup</w>"])


@pytest.mark.parametrize("name", ["zürich", "漢字", "x", "emoji 😀", "(odd)", "3D-printer"])
def test_words_outside_the_vocabulary_fall_to_letters(name):
    prompt = category_prompt({"name": name, "def": "a Größe of 漢"}, Settings(), TOKENIZER)
    ids = TOKENIZER(prompt.text).input_ids
    spelled = TOKENIZER.decode([ids[position] for position in prompt.tokens])
    assert spelled.replace(" ", "") == name.lower().replace(" ", "")


def test_a_long_prompt_is_truncated_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        prompt = category_prompt({"name": "cup", "def": "a fish " * 80}, Settings(), TOKENIZER)
    assert prompt.tokens == (6,)
    assert "prompt of 169 tokens truncated to 77" in caplog.text


def test_a_name_that_truncation_cuts_is_refused():
    settings = Settings(prompt="the fish " * 36 + "{name}")  # 72 tokens before the name, 75 are read
    assert category_prompt({"name": "spatula"}, settings, TOKENIZER).tokens == (73, 74, 75)
    with pytest.raises(InputError, match="category 'table-tennis_table': its name ends at token 77"):
        category_prompt({"name": "table-tennis_table"}, settings, TOKENIZER)
