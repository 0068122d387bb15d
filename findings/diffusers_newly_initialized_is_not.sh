#!/bin/sh
# diffusers: weights that are reported as "newly initialized" are not initialized.
#
# Expected: a U-Net that is loaded with more inputs (inpainting: 9 channels instead of 4) or new layers (GLIGEN's gated
#   attention) has the weights of the file where there are some and fresh ones elsewhere. A message names the latter:
#   "newly initialized ... You should probably TRAIN this model". Loading without low_cpu_mem_usage is the way that
#   diffusers' own error message gives for this case.
# Happens: the model is built with the initialization of linear layers, convolutions and norms switched off, and nothing
#   makes up for it. The new weights are whatever was in the memory: zeros, values of 1e36, or NaN. Even layer norms are
#   not 1. (With low_cpu_mem_usage, the default, new layers stay on the "meta" device, without any memory.)
# Means: training begins from layers that no recipe means, at worst with NaN in the first step, and differs from run to
#   run in spite of all seeds. Build the model with from_config, then load the weights into it with load_state_dict.
#
# Installs diffusers 0.42.1, accelerate 1.15.0 and torch 2.13.0 into a temporary folder; the U-Net is a small one. What
# has not been initialized is made visible by PyTorch, which fills such memory with NaN in deterministic mode. Exits
# with 1 when the behaviour has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq torch==2.13.0 diffusers==0.42.1 accelerate==1.15.0 numpy==2.2.6
DIFFUSERS_VERBOSITY=error "$work/venv/bin/python" - "$work" <<'PYTHON'
import sys

import diffusers
import torch
from diffusers import UNet2DConditionModel

torch.use_deterministic_algorithms(True)
assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(1).isnan()
UNET = dict(
    sample_size=8,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(32, 64),
    layers_per_block=1,
    cross_attention_dim=32,
    attention_head_dim=8,
    norm_num_groups=8,
)


def without_values(model):
    """Names of the model's weights that hold what was in the memory, and how many weights it has."""
    weights = model.state_dict()
    return [name for name, value in weights.items() if value.isnan().any()], len(weights)


folder = sys.argv[1] + "/unet"
UNet2DConditionModel(**UNET).save_pretrained(folder)
print(f"diffusers {diffusers.__version__}, torch {torch.__version__}: weights that nothing has written")
seen = {}
for name, settings in (("9 inputs", {"in_channels": 9}), ("gated", {"attention_type": "gated"})):
    built, total = without_values(UNet2DConditionModel(**UNET, **settings))
    loaded, _ = without_values(
        UNet2DConditionModel.from_pretrained(
            folder, low_cpu_mem_usage=False, ignore_mismatched_sizes=True, **settings
        )
    )
    seen[name] = len(built), len(loaded)
    print(f"  {name:8} of {total} weights: built from the settings {len(built)}, loaded {len(loaded)}")
    print(f"  {'':8} for instance {sorted(loaded)[0]}")
if seen["9 inputs"] != (0, 1) or seen["gated"][0] != 0 or seen["gated"][1] < 20:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: new weights are left as the memory was, though reported as newly initialized")
PYTHON
