"""The small CLIP vocabulary."""

import pytest
from transformers import CLIPTokenizer

from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.tokenizer import build_tokenizer, vocabulary


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_every_word_of_the_vocabulary_is_one_token(tokenizer):
    assert [word for word in vocabulary() if len(tokenizer(word).input_ids) != 3] == []


@pytest.mark.parametrize(
    "template",
    [
        "a photo of a single {name}, {definition}",  # MosaicFusion
        "{name}, {name}",  # Gen2Det
        "a photograph of {name} and {name}",  # InstaGen
        "a realistic photo, with a {name}, a {name} in the photo",  # DiffusionEngine
        "An image with {name}",  # DetDiffusion
    ],
)
def test_the_templates_of_all_engines_consist_of_known_words(tokenizer, template):
    for category in CATEGORIES:
        text = template.format(name=category.name, definition=category.definition)
        words = text.lower().replace(",", " , ").split()
        assert len(tokenizer(text).input_ids) == len(words) + 2 <= tokenizer.model_max_length


@pytest.mark.parametrize("text", ["giraffe", "naïve Äpfel", "寿司", "x" * 500, "", "\n\t", "🙂"])
def test_unknown_words_fall_apart_instead_of_crashing(tokenizer, text):
    ids = tokenizer(text, padding="max_length", truncation=True, max_length=77).input_ids
    assert len(ids) == 77 and max(ids) < len(tokenizer)
