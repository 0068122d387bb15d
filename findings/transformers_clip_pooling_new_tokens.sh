#!/bin/sh
# transformers: once a word has been added to CLIP's vocabulary, a text's embedding is read there, not at its end.
#
# Expected: CLIP's pooled text embedding is the last layer at the end-of-text token, which has seen the whole text.
#   Adding tokens and training their rows is the standard way to teach a generator a new word (textual inversion,
#   layout tokens); nothing else of the model changes.
# Happens: configurations of the first years say eos_token_id: 2, Stable Diffusion 1's text encoder among them. For
#   those the model takes the position of the largest token id, which is the end of text (49407) in the old vocabulary.
#   Added tokens have larger ids, so the embedding is read at the first of the largest: with causal attention it knows
#   nothing of what follows. "a photo of <cup>, broken" and "a photo of <cup>, full" have the same embedding.
# Means: whatever uses the pooled output with new tokens goes wrong without a sign: CLIP scores and filters, phrases in
#   GLIGEN, the pooled condition of later models. Per-token output (last_hidden_state) is not affected. Set
#   config.eos_token_id = 49407 before the model is made.
#
# Installs transformers 5.23.0 and torch 2.13.0 into a temporary folder; the model is a small one with random weights.
# Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq torch==2.13.0 transformers==5.23.0 numpy==2.2.6
TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers import CLIPTextConfig, CLIPTextModel

WORDS, START, END = 49408, 49406, 49407  # CLIP's vocabulary; its last two ids are start and end of text
NEW = WORDS  # the id of the first token that is added
A, PHOTO, OF, CUP, BROKEN, FULL = 320, 1125, 539, 1937, 8737, 1476


def text(noun, last):
    return torch.tensor([[START, A, PHOTO, OF, noun, last, END]])


def shown(eos):
    """Position the embedding is read at, and whether it tells two texts that differ in the last word, by noun."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=WORDS, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=START, eos_token_id=eos,
    )  # fmt: skip
    model = CLIPTextModel(config).eval()
    model.resize_token_embeddings(WORDS + 1, mean_resizing=False)
    rows = []
    for name, noun in (("cup", CUP), ("<cup>, added", NEW)):
        with torch.no_grad():
            broken, full = model(text(noun, BROKEN)), model(text(noun, FULL))
        distances = (broken.last_hidden_state[0] - broken.pooler_output[0]).abs().amax(dim=1)
        read_at = int(distances.argmin())
        differ = not torch.allclose(broken.pooler_output, full.pooler_output, atol=1e-6)
        rows.append((read_at, differ))
        print(f"  eos_token_id {eos:5}, {name:12}: read at position {read_at} of 0 to 6; last word matters: {differ}")
    return rows


print(f"transformers {transformers.__version__}, torch {torch.__version__}")
old, new = shown(2), shown(END)
if old != [(6, True), (4, False)] or new != [(6, True), (6, True)]:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: with an added token the embedding ends at that token")
PYTHON
