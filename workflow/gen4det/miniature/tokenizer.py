"""A CLIP tokenizer over the miniature's small vocabulary.

The class is transformers' own; only the byte-pair merges are ours. Every word below becomes one token;
any other word falls apart into shorter pieces and, at worst, into bytes, so no text is refused.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.renderer import COLOUR_WORDS

# Words of the prompt templates of the five engines and of the corpus captions, beside the categories'
# names and definitions.
TEMPLATE_WORDS = """
a an and the of with in on at image photo photograph picture drawing painting cartoon sketch clipart anime
realistic single many two three small large big near top bottom left right front behind scene background
style domain empty plain object objects easy hard high quality best detailed sharp clear clean blurry bad
low worst ugly noise watercolor comic
""".split()
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def vocabulary() -> list[str]:
    """All words that become one token, sorted."""
    words = set(TEMPLATE_WORDS) | {word for _, word in COLOUR_WORDS}
    for category in CATEGORIES:
        words.update(category.name.split(), category.definition.split())
    return sorted(words)


def build_tokenizer(folder: Path) -> None:
    """Write a CLIPTokenizer (maximum length 77, as in Stable Diffusion) to `folder`."""
    from transformers import CLIPTokenizer

    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, show_progress=False, end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(vocabulary(), trainer)
    learned = json.loads(bpe.to_str())["model"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = alphabet + [letter + "</w>" for letter in alphabet]
    merges = [
        tuple(merge) if isinstance(merge, list) else tuple(merge.split()) for merge in learned["merges"]
    ]
    pieces += [left + right for left, right in merges]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    for special in (BOS, EOS):
        vocab[special] = len(vocab)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    tokenizer.save_pretrained(folder)
