"""What could be left out of a guided U-Net evaluation: counted as shares of it, and two parts measured.

  text_projections   keys and values of cross-attention, which depend on the prompt alone: once for all steps
  shared_beginning   what comes before the first cross-attention, which both halves of guidance have in common
  time               embedding of the step and its projections, the same for all regions and images
  recording          what MosaicFusion adds to record attention; no saving, but for scale
  all_softmaxes      what its released code adds at least: the softmax of all tokens in every layer, twice

Counted as multiplications and additions on torch's meta device. Measured in single-threaded CPU-seconds, both
sides in turn, on the miniature's U-Net: `apart` is the largest difference of what it predicts.

  python benchmarks/unet_savings.py --calls 10
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from gen4det.diffusion.cross_attention import CrossAttentionRecorder, TokenMaps
from gen4det.diffusion.unet_levels import layer_level

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import real_architectures as real  # noqa: E402

TOKENS = 77
MINIATURE = ROOT / "resources/miniature/stable-diffusion"
REGIONS = {"stable-diffusion-1-4": (51, 68), "miniature": (18, 18)}
"""Latent cells of a mean region, 408 x 544 px, and of one of the miniature's, 72 x 72 px."""
Forwards = dict[torch.nn.Module, Callable]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=10, help="evaluations of each side and batch")
    parser.add_argument("--canvases", type=int, nargs="+", default=[1, 8], help="in one batch")
    args = parser.parse_args()
    torch.set_num_threads(1)
    miniature = UNet2DConditionModel.from_pretrained(MINIATURE, subfolder="unet").eval().requires_grad_(False)
    measured = {
        f"{change.__name__}, {n} canvases": compare(miniature, change, n, args.calls)
        for change in (kept_projections, shared_beginning)
        for n in args.canvases
    }
    unets = {"stable-diffusion-1-4": real.unet("stable-diffusion-1-4"), "miniature": miniature.to("meta")}
    counted = {name: shares(unet, REGIONS[name]) for name, unet in unets.items()}
    print(json.dumps({"counted": counted, "measured": measured}, indent=1))


def shares(unet: UNet2DConditionModel, region: tuple[int, int]) -> dict:
    """What the parts of one evaluation with guidance compute, in percent of it."""
    plain = modules(unet, region)
    total = plain["Global"]

    def part(*ends: str, images: int = 2) -> float:
        return sum(flops for name, flops in plain.items() if name.endswith(ends)) * images / 2

    place = "down_blocks.0"
    block = f"{place}.attentions.0.transformer_blocks.0"
    common = (".conv_in", f".{place}.resnets.0", f".{place}.attentions.0.proj_in", f".{block}.attn1")
    recorder = CrossAttentionRecorder(unet, (1, 2, 4))
    maps = TokenMaps([[5]], "mean", region, recorder.factors, "meta")
    with recorder.into(maps, slice(1, None)):
        recorded = modules(unet, region)["Global"]
    percent = {
        "text_projections": part(".attn2.to_k", ".attn2.to_v"),
        "shared_beginning": part(*common, images=1),
        "time": part(".time_embedding", ".time_emb_proj"),
        "recording": recorded - total,
        "all_softmaxes": sum(softmaxes(unet, region)),
    }
    return {
        "gigaflops": round(total / 1e9, 2),
        "percent": {name: round(100 * flops / total, 2) for name, flops in percent.items()},
    }


def modules(unet: UNet2DConditionModel, region: tuple[int, int]) -> dict[str, int]:
    """Multiplications and additions of each module in one evaluation of two rows."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta")

    latents = empty(2, unet.config.in_channels, *region)
    states = empty(2, TOKENS, unet.config.cross_attention_dim)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(latents, torch.tensor(1, device="meta"), encoder_hidden_states=states)
    return {name: sum(by_operator.values()) for name, by_operator in counter.get_flop_counts().items()}


def softmaxes(unet: UNet2DConditionModel, region: tuple[int, int]) -> list[int]:
    """Of each cross-attention layer: its queries times its keys once more, for two rows."""
    counts = []
    blocks = len(unet.down_blocks)
    for name, module in unet.named_modules():
        if name.endswith(".attn2"):
            factor = 2 ** layer_level(name, blocks)
            positions = -(-region[0] // factor) * -(-region[1] // factor)
            counts.append(2 * 2 * positions * TOKENS * module.to_q.out_features)
    return counts


def kept_projections(unet: UNet2DConditionModel, latents: torch.Tensor, states: torch.Tensor) -> Forwards:
    """The text is found projected."""
    layers = [layer for name, layer in unet.named_modules() if name.endswith((".attn2.to_k", ".attn2.to_v"))]

    def always(value: torch.Tensor) -> Callable:
        return lambda _: value

    return {layer: always(layer(states)) for layer in layers}


def shared_beginning(unet: UNet2DConditionModel, *_: torch.Tensor) -> Forwards:
    """The costly parts before the first cross-attention see one half, which is then repeated."""
    first = unet.down_blocks[0]
    attention = first.attentions[0].transformer_blocks[0].attn1

    def once(forward: Callable) -> Callable:
        def half(value: object) -> object:
            return value[: len(value) // 2] if isinstance(value, torch.Tensor) else value

        def run(*args, **named) -> torch.Tensor:
            found = forward(*map(half, args), **{name: half(value) for name, value in named.items()})
            return torch.cat([found, found])

        return run

    return {layer: once(layer.forward) for layer in (unet.conv_in, first.resnets[0], attention)}


@torch.inference_mode()
def compare(unet: UNet2DConditionModel, change: Callable[..., Forwards], canvases: int, calls: int) -> dict:
    """CPU-seconds of an evaluation as it is, and with some layers' forwards replaced."""
    torch.manual_seed(0)
    latents = torch.randn(canvases, unet.config.in_channels, *REGIONS["miniature"]).repeat(2, 1, 1, 1)
    states = torch.randn(2 * canvases, TOKENS, unet.config.cross_attention_dim)
    changed = change(unet, latents, states)
    sides = {"as_it_is": {layer: layer.forward for layer in changed}, "saved": changed}
    seconds, results = {name: [] for name in sides}, {}
    for number in range(calls + 1):
        for name, forwards in sides.items():
            for layer, forward in forwards.items():
                layer.forward = forward
            start = time.process_time()
            results[name] = unet(latents, 500, encoder_hidden_states=states).sample
            if number:  # the first warms up
                seconds[name].append(time.process_time() - start)
    for layer, forward in sides["as_it_is"].items():
        layer.forward = forward
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "apart": float((results["as_it_is"] - results["saved"]).abs().max()),
        "milliseconds": {name: round(1e3 * value, 1) for name, value in median.items()},
        "saved_percent": round(100 * (1 - median["saved"] / median["as_it_is"]), 1),
    }


if __name__ == "__main__":
    main()
