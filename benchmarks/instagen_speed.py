"""How much faster it is to look into stored latents than to draw again, and to share features than not to.

    python benchmarks/instagen_speed.py [--model resources/miniature/stable-diffusion] [--device cpu]

One run, both ways of each comparison in turn. Images per second of labelling are those of the U-Net's pass
over stored latents, without the head; of drawing those of all steps and the decoding. The memory of the taps
is that of Stable Diffusion 1's widths, counted.
"""

import argparse

import numpy as np
import torch
from timing import timed

from gen4det.detection.grounding_head import GroundingHead
from gen4det.detection.grounding_settings import GroundingShape
from gen4det.diffusion.settings import DenoisingSettings, ModelSource
from gen4det.engines.instagen.draw import Sampler
from gen4det.engines.instagen.feature_bank import FeatureBank, texts_of
from gen4det.engines.instagen.samples import objects_of, slots_of
from gen4det.engines.instagen.teacher import Teacher

SHAPE = GroundingShape(
    channels=96, encoder_layers=2, decoder_layers=3, queries=40, heads=6, feed_forward=256,
    text_feed_forward=192, fusion_channels=192,
)  # fmt: skip
"""The miniature's."""
SD_VALUES = 2 * (2560 * 64**2 + 4160 * 32**2 + 7040 * 16**2 + 7680 * 8**2)
"""Values of all taps of an image of 512 px, with and without prompt: 5120, 8320, 14080, 15360 channels."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="resources/miniature/stable-diffusion")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    source = ModelSource(path=args.model)
    sampler = Sampler(
        source, DenoisingSettings(scheduler="ddim", steps=args.steps, guidance=5.0), args.device
    )
    bank = FeatureBank(source, "float32", args.device)
    rows = [
        {"seed": number, "side": args.side, "prompt": "a photograph of cup and fish"}
        for number in range(args.images)
    ]
    records = [
        {
            "width": args.side,
            "height": args.side,
            "categories": [1, 2],
            "last_step": 1,
            "prompt": row["prompt"],
        }
        for row in rows
    ]
    seconds: dict[str, list[float]] = {}

    def measure(name: str, run) -> None:
        seconds.setdefault(name, []).append(timed(run, args.device)[1 if args.device == "cpu" else 0])

    latents = torch.from_numpy(sampler.draw(rows)[1])
    student = GroundingHead(bank.channels, bank.text_channels, SHAPE).to(args.device)
    teacher = Teacher(student, 0.999).to(args.device)
    vectors = bank.vectors([{"id": 1, "name": "cup"}, {"id": 2, "name": "fish"}])
    text, named = texts_of(records, vectors).to(args.device), slots_of(records).to(args.device)
    box = (1, 0.9, [args.side / 4, args.side / 4, args.side / 2, args.side / 2])
    objects = [type(it)(it.boxes.to(args.device), it.slots.to(args.device)) for it in
               (objects_of([box], record) for record in records)]  # fmt: skip

    def iteration(shared: bool) -> None:
        features = bank(latents, records)
        seen = features if shared else bank(latents, records)
        teacher.labels(seen, text, named, records, {2}, 0.4)
        student.train()
        sum(student.loss(student(features, text, named), objects, named).values()).backward()
        student.zero_grad()
        teacher.follow(student)

    for _ in range(args.repeats):
        measure("drawing", lambda: sampler.draw(rows))
        measure("features", lambda: bank(latents, records))
        measure("shared", lambda: iteration(True))
        measure("apart", lambda: iteration(False))
    drawing, features, shared, apart = (float(np.median(seconds[it])) for it in
                                        ("drawing", "features", "shared", "apart"))  # fmt: skip
    unit = "CPU-second" if args.device == "cpu" else "second"
    print(f"drawing ({args.steps} steps): {args.images / drawing:.2f} images per {unit}")
    print(f"features of stored latents: {args.images / features:.2f}, {drawing / features:.1f} times as many")
    print(f"self-training of {args.images} images, features shared: {1 / shared:.2f} iterations per {unit}")
    print(f"each its own: {1 / apart:.2f}; sharing is {apart / shared:.2f} times as fast")
    print(f"taps of one 512 px image of Stable Diffusion 1: {SD_VALUES / 1e6:.1f} million values, "
          f"{4 * SD_VALUES / 2**20:.0f} MiB in float32; its latents 64 KiB")  # fmt: skip


if __name__ == "__main__":
    main()
