"""One pass of each stage at full size on the CPU: the public architectures with random weights, in float32.

Each stage runs in a process of its own; printed are the shape of its result, seconds, and the peak of the
process's memory with and without the weights. Needs about 10 GiB of memory and minutes, no download.

  python benchmarks/full_size_memory.py                  all stages, as a table in Markdown
  python benchmarks/full_size_memory.py mosaicfusion     one stage, in this process
"""

import argparse
import json
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from timing import timed

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import real_architectures as real  # noqa: E402

GIB = 2**30
Pass = Callable[[], torch.Tensor]
"""One pass; its result is looked at for shape and numbers."""


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """The model with small random numbers in place of none."""
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.normal_(std=0.02)
    return model.eval()


# --- stages ---------------------------------------------------------------------------------------


def mosaicfusion(name: str) -> tuple[torch.nn.Module, Pass]:
    """A step on one region of 408 x 544 px, with guidance, while cross-attention is recorded."""
    from gen4det.diffusion.cross_attention import CrossAttentionRecorder, TokenMaps

    unet = filled(real.unet(name))
    recorder = CrossAttentionRecorder(unet, (1, 2, 4))

    def run() -> torch.Tensor:
        maps = TokenMaps([[5]], "mean", (51, 68), recorder.factors, "cpu")
        states = torch.randn(2, 77, unet.config.cross_attention_dim)
        with recorder.into(maps, rows=slice(1, None)):
            predicted = unet(torch.randn(2, 4, 51, 68), torch.tensor(1), states).sample
        assert maps.count and all(sums.isfinite().all() for sums in maps.sums.values())
        return predicted

    return unet, run


def gen2det() -> tuple[torch.nn.Module, Pass]:
    """A step on one image of 512 x 512 px with 30 boxes, with guidance."""
    from gen4det.diffusion.grounded_inpainting import MAX_BOXES
    from gen4det.diffusion.guidance import guided_noise

    unet = filled(real.unet("gligen-1-4-inpainting"))
    boxes = {
        "boxes": torch.rand(1, MAX_BOXES, 4),
        "positive_embeddings": torch.randn(1, MAX_BOXES, 768),
        "masks": torch.ones(1, MAX_BOXES),
    }
    inputs, states = torch.randn(1, 9, 64, 64), torch.randn(1, 77, 768)
    return unet, lambda: guided_noise(unet, inputs, torch.tensor(1), states, states, 7.5, boxes=boxes)


def detdiffusion() -> tuple[torch.nn.Module, Pass]:
    """A training step of the generator on one image of 256 x 256 px: both losses, forwards and backwards."""
    from diffusers import DDPMScheduler

    from gen4det.diffusion.features import FeatureTaps
    from gen4det.diffusion.finetuning import NoisePrediction
    from gen4det.engines.detdiffusion.perception import PerceptionLoss, PerceptiveHead, Targets

    unet, text = filled(real.unet("stable-diffusion-1-5")), filled(real.clip_text_encoder(65_538))
    head = PerceptiveHead(real.STABLE_DIFFUSION_1["block_out_channels"], 80, 448)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    loss = NoisePrediction(scheduler, taps=FeatureTaps(unet, "up"))
    perception = PerceptionLoss(head, loss.schedule, 0.01)
    wanted = Targets(torch.arange(8)[None], torch.ones(1, 8, 32, 32), torch.ones(1, 8, dtype=torch.bool))
    loss.second = lambda prediction, t, features: perception(t, features, wanted)

    def run() -> torch.Tensor:
        states = text(torch.arange(77)[None]).last_hidden_state
        latents, noise = torch.randn(2, 1, 4, 32, 32)
        found = loss(unet, latents, states, noise, torch.tensor([500]))
        found.total.backward()
        return found.total.detach()

    return torch.nn.ModuleList([unet, text, head]), run


def diffusionengine() -> tuple[torch.nn.Module, Pass]:
    """Features of one image of 512 x 512 px, as the adapter sees it: one evaluation, every block kept."""
    from gen4det.diffusion.features import FeatureTaps
    from gen4det.diffusion.replay import features_of

    unet = filled(real.unet("stable-diffusion-2-0-base"))
    taps = FeatureTaps(unet, "blocks")

    def run() -> torch.Tensor:
        levels = features_of(taps, torch.randn(1, 4, 64, 64), 1, torch.randn(1, 77, 1024))
        assert [level.shape[1] for level in levels] == [960, 1600, 1920, 3840]
        return levels[0]

    return unet, run


def instagen() -> tuple[torch.nn.Module, Pass]:
    """A step of the head on one image of 512 x 512 px: taps without and with prompt, teacher, student, both
    ways."""
    from gen4det.detection.grounding_head import GroundingHead, Objects
    from gen4det.detection.grounding_settings import GroundingShape
    from gen4det.diffusion.features import FeatureTaps
    from gen4det.diffusion.replay import features_of_both
    from gen4det.engines.instagen.teacher import Teacher

    unet = filled(real.unet("stable-diffusion-1-4")).requires_grad_(False)
    taps = FeatureTaps(unet, "layers")
    channels = [5120, 8320, 14080, 15360]
    torch.manual_seed(0)
    student = GroundingHead(channels, 768, GroundingShape())
    teacher = Teacher(student, 0.999)
    record = {"width": 512, "height": 512, "categories": [1, 2]}

    def run() -> torch.Tensor:
        states = torch.randn(2, 1, 77, 768)
        levels = features_of_both(taps, torch.randn(1, 4, 64, 64), 1, *states)
        assert [level.shape[1] for level in levels] == channels
        text, named = torch.randn(1, 2, 768), torch.ones(1, 2, dtype=torch.bool)
        teacher.labels(levels, text, named, [record], {2}, 0.4)
        objects = [Objects(torch.tensor([[0.2, 0.2, 0.6, 0.6]]), torch.tensor([0]))]
        loss = sum(student.loss(student.train()(levels, text, named), objects, named).values())
        loss.backward()
        return loss.detach()

    return torch.nn.ModuleList([unet, student]), run


def autoencoder() -> tuple[torch.nn.Module, Pass]:
    """An image of 512 x 512 px into latents and back."""
    vae = filled(real.autoencoder())
    return vae, lambda: vae.decode(vae.encode(torch.rand(1, 3, 512, 512)).latent_dist.mode()).sample


def clip() -> tuple[torch.nn.Module, Pass]:
    """The embedding that the aesthetic predictor reads, of one image."""
    tower = filled(real.clip_image_tower())
    return tower, lambda: tower(torch.randn(1, 3, 224, 224)).image_embeds


def detector(train: bool) -> tuple[torch.nn.Module, Pass]:
    """Mask R-CNN R50-FPN of LVIS's 1,203 categories on one image of 800 x 1333 px."""
    from gen4det.detection.detectors import build_model, load_config

    config = load_config(ROOT / "config/detectors/lvis_mask_rcnn_r50_fpn.py", classes=1203)
    torch.manual_seed(0)
    model = build_model(config.model.to_dict())
    model.train(train)

    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    sample = DetDataSample(
        metainfo={"img_shape": (800, 1333), "ori_shape": (800, 1333), "scale_factor": (1, 1)}
    )
    corners = torch.rand(20, 2) * torch.tensor([1000.0, 600.0])
    boxes = torch.cat([corners, corners + 100], 1)
    masks = BitmapMasks([torch.zeros(800, 1333).numpy()] * 20, 800, 1333)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(20), masks=masks)
    image = (torch.rand(3, 800, 1333) * 255).byte()

    def run() -> torch.Tensor:
        batch = model.data_preprocessor({"inputs": [image], "data_samples": [sample]}, train)
        if not train:
            with torch.no_grad():
                return model(**batch, mode="predict")[0].pred_instances.bboxes
        loss, _ = model.parse_losses(model(**batch, mode="loss"))
        loss.backward()
        return loss.detach()

    return model, run


STAGES: dict[str, Callable[[], tuple[torch.nn.Module, Pass]]] = {
    "mosaicfusion": lambda: mosaicfusion("stable-diffusion-1-4"),
    "mosaicfusion-sd2": lambda: mosaicfusion("stable-diffusion-2-0-base"),
    "gen2det": gen2det,
    "detdiffusion": detdiffusion,
    "diffusionengine": diffusionengine,
    "instagen": instagen,
    "autoencoder": autoencoder,
    "rate": clip,
    "train": lambda: detector(train=True),
    "evaluate": lambda: detector(train=False),
}


def measure(stage: str, threads: int) -> dict:
    """Run one stage in this process."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    model, run = STAGES[stage]()
    results = []

    def once() -> None:
        with torch.set_grad_enabled(stage in ("train", "detdiffusion", "instagen")):
            results.append(run())

    seconds, _ = timed(once, "cpu")
    (result,) = results
    assert result.isfinite().all(), "random weights must not overflow"
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "stage": stage, "parameters": real.parameters(model), "result": list(result.shape),
        "seconds": round(seconds, 1),
        "weights_gib": round(weights / GIB, 2),
        "peak_gib": round(peak / GIB, 2),
    }  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", nargs="?", choices=STAGES)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(measure(args.stage, args.threads)))
        return
    print("| stage | parameters | result | weights, GiB | peak, GiB | s on the CPU |")
    print("|---|---:|---|---:|---:|---:|")
    for stage in STAGES:
        command = [sys.executable, __file__, stage, "--threads", str(args.threads)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            "| `{stage}` | {parameters:,} | {result} | {weights_gib} | {peak_gib} | {seconds} |".format(
                **found
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
