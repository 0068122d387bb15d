#!/bin/sh
# transformers: resize_token_embeddings gives all new tokens the same embedding.
#
# Expected: new rows are drawn "from a multivariate normal distribution that has old embeddings' mean and covariance",
#   as the documentation and the message at run time say: as different from each other as the old words are.
# Happens: the covariance is multiplied by 1e-9 first. New rows are the mean of the old ones, but for a 30,000th of the
#   old spread; the cosine of any two is above 0.9999.
# Means: hundreds of new words (layout tokens, box coordinates, concepts) start as one word. Rows that are frozen, or
#   seldom trained, stay it: coordinates cannot be told apart, and no error or strange loss shows it. For tens of
#   thousands of tokens the draw takes minutes, for nothing. Pass mean_resizing=False, or write the rows yourself.
#
# Installs transformers 5.23.0 and torch 2.13.0 into a temporary folder; the model is a small one with random weights.
# Exits with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq torch==2.13.0 transformers==5.23.0 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers import CLIPTextConfig, CLIPTextModel

OLD, NEW = 5000, 300


def spreads(**settings):
    """Standard deviation of old and of new rows; the least cosine between new rows."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=OLD, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=OLD - 2, eos_token_id=OLD - 1, pad_token_id=0,
    )  # fmt: skip
    model = CLIPTextModel(config)
    model.resize_token_embeddings(OLD + NEW, **settings)
    rows = model.get_input_embeddings().weight.detach()
    old, new = rows[:OLD], rows[OLD:]
    cosines = torch.nn.functional.normalize(new.double(), dim=1)
    cosines = cosines @ cosines.T
    return float(old.std(0).mean()), float(new.std(0).mean()), float(cosines.min())


print(f"transformers {transformers.__version__}, torch {torch.__version__}: {NEW} tokens added to {OLD}")
seen = {}
for name, settings in (("default", {}), ("mean_resizing=False", {"mean_resizing": False})):
    seen[name] = old, new, cosine = spreads(**settings)
    print(f"  {name:20} spread of old rows {old:.4f}, of new rows {new:.7f} ({new / old:.5f} of it)")
    print(f"  {'':20} least cosine of two new rows {cosine:.5f}")
old, new, cosine = seen["default"]
if not (new / old < 1e-4 and cosine > 0.9999 and seen["mean_resizing=False"][1] > old / 2):
    sys.exit("CHANGED: this is no longer what happens")
print("as described: by default all new tokens begin as one")
PYTHON
